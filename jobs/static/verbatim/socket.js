// A WebSocket that comes back by itself, for as long as the page lives.

const FIRST_WAIT = 500;
const LONGEST_WAIT = 5000;
const FINAL = new Set([4401, 4404, 4410]); // refused for good: signed out, or there is no such thing

/**
 * Watch an address. `greeting()` gives what is said first on each connection, or null;
 * `onMessage` gets every message; `onState(open)` hears when the connection comes and goes,
 * and `onRefused(code)` when it will not come back.
 */
export function watch(path, { greeting = () => null, onMessage, onState = () => {}, onRefused = () => {} }) {
  let wait = FIRST_WAIT;
  let socket;
  function connect() {
    socket = new WebSocket(new URL(path, location.href.replace(/^http/, "ws")));
    socket.onopen = () => {
      const first = greeting();
      if (first) socket.send(JSON.stringify(first));
      onState(true);
    };
    socket.onmessage = (event) => {
      wait = FIRST_WAIT;
      onMessage(JSON.parse(event.data));
    };
    socket.onclose = ({ code }) => {
      onState(false);
      if (FINAL.has(code)) return onRefused(code);
      setTimeout(connect, wait * (0.5 + Math.random()));
      wait = Math.min(2 * wait, LONGEST_WAIT);
    };
  }
  connect();
}
