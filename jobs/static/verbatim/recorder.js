// The microphone: pressed once it records, pressed again it gives a file.

/** Make a button record. `onFile` gets each recording; `onTime` the seconds so far, or null. */
export function recordWith(button, { onFile, onTime, onError }) {
  let recorder = null;
  let asking = false;

  async function start() {
    let stream;
    if (asking) return;
    asking = true;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      return onError(error);
    } finally {
      asking = false;
    }
    const pieces = [];
    const began = Date.now();
    const clock = setInterval(() => onTime((Date.now() - began) / 1000), 500);
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => pieces.push(event.data);
    recorder.onstop = () => {
      clearInterval(clock);
      for (const track of stream.getTracks()) track.stop();
      const type = recorder.mimeType.split(";")[0];
      const ending = type.split("/")[1] ?? "webm";
      const seconds = (Date.now() - began) / 1000;
      const name = `recording-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.${ending}`;
      recorder = null;
      button.setAttribute("aria-pressed", "false");
      onTime(null);
      onFile(new File(pieces, name, { type }), seconds);
    };
    recorder.start(1000); // in pieces: little is lost when the page dies
    button.setAttribute("aria-pressed", "true");
  }

  button.addEventListener("click", () => (recorder ? recorder.stop() : start()));
  if (!navigator.mediaDevices?.getUserMedia) button.hidden = true; // without HTTPS there is none
}
