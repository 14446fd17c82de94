"""The environment: every variable that Verbatim reads, its type, its default and its meaning.

Values come from the process's environment, then from `.env` beside `manage.py`. Each variable
may be given as `<NAME>_FILE` instead, the path of a file that holds the value (a secret in a
file). An empty value counts as not set.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from asr import registry
from asr.child_pool import ChildPool
from asr.errors import EngineMisconfigured
from asr.registry import ENGINES
from transcription_site.storage_url import origins, s3_options
from transcription_site.values import Dollars, Prices, Rate

BASE_DIR = Path(__file__).resolve().parent.parent
VENDOR_DEEPGRAM_URL = "https://api.deepgram.com"
VENDOR_OPENAI_URL = "https://api.openai.com/v1"
LAST_REDIS_DATABASE = 15  # of a stock Redis
WRITE_SECONDS = 5  # what a claim outlives its engine call by at least, to write the result

WhisperComputeType = Literal[
    "default",
    "auto",
    "int8",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
    "int16",
    "float16",
    "bfloat16",
    "float32",
]


class InvalidEnvironmentError(Exception):
    """A variable is wrong, or two contradict each other. The message is one clear line."""


class Environment(BaseModel):
    """The validated variables; field names are the variables' names in lower case."""

    # Beside the fields: the variables of engines that have none here.
    model_config = ConfigDict(frozen=True, extra="allow")

    var_dir: Path = Field(
        BASE_DIR / "var", description="where everything a running system writes lies"
    )
    database_url: str = Field(
        "", description="postgres://user:password@host/name; SQLite under var/ if unset"
    )
    redis_url: str = Field("", description="broker and cache; the bundled Redis if unset")
    audio_root: Path = Field(
        Path(),
        description="the folder that relative audio paths are looked up in; var/audio if unset",
    )
    audio_storage_url: str = Field(
        "",
        description="s3://bucket/prefix?endpoint=…&region=…&encryption=AES256|aws:kms|none&kmsKey=…:"
        " where audio lies instead of AUDIO_ROOT",
    )
    audio_storage_allow_http: bool = Field(
        False, description="whether its endpoint may be spoken to without TLS"
    )
    aws_access_key_id: str = Field(
        "", description="credentials for AUDIO_STORAGE_URL; those of the instance's role if unset"
    )
    aws_secret_access_key: str = Field("", description="the other half of them")
    aws_session_token: str = Field("", description="the third part of temporary ones")
    audio_max_bytes: int = Field(5_000_000, ge=1, description="the largest audio file, in bytes")
    audio_max_seconds: float = Field(
        300, gt=0, description="the longest audio file once decoded, in seconds"
    )
    recording_max_bytes: int = Field(
        500_000_000, ge=1, description="the largest recording that is to be cut, in bytes"
    )
    recording_max_seconds: float = Field(
        7200, gt=0, le=9000, description="the longest one, in seconds: 30 chunks of 5 minutes"
    )
    asr_engine: str = Field(
        "pocketsphinx", description=f"the engine of jobs that name none: {', '.join(ENGINES)}"
    )
    asr_fallback: str = Field(
        "", description="engines that stand in while one's breaker is open, by commas, in order"
    )
    breaker_seconds: float = Field(
        30, ge=1, le=3600, description="how often an engine that is down is tried again"
    )
    deduplicate: Literal["user", "everyone", "off"] = Field(
        "user", description="whose earlier words for the same sound are taken again, at no call"
    )
    openai_api_key: str = Field("", description="key of the engine openai")
    openai_base_url: str = Field(
        VENDOR_OPENAI_URL, description="the vendor, or any server that speaks its API"
    )
    openai_model: str = Field("whisper-1", description="model of the engine openai")
    deepgram_api_key: str = Field("", description="key of the engine deepgram")
    deepgram_base_url: str = Field(
        VENDOR_DEEPGRAM_URL, description="the vendor, one of its regions, or its server at yours"
    )
    deepgram_model: str = Field("nova-3", description="model of the engine deepgram")
    whisper_model: str = Field(
        "small",
        description="model of the engine faster-whisper: a name or a local folder; a job may name"
        " the engine only where this is set, or ASR_ENGINE or ASR_FALLBACK names it",
    )
    whisper_device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="what the model runs on; auto: a GPU if there is one"
    )
    whisper_compute_type: WhisperComputeType = Field(
        "default", description="the numbers that it computes with; default: as they are stored"
    )
    whisper_batch_size: int = Field(
        8, ge=1, le=64, description="windows of one file recognised at a time; 1: each by itself"
    )
    whisper_vad: bool = Field(
        True, description="whether only what sounds like speech reaches the model"
    )
    whisper_processes: int = Field(
        1, ge=1, le=64, description="child processes that hold the model each"
    )
    whisper_idle_seconds: float = Field(
        300, ge=1, le=86400, description="after which an idle one ends and frees its memory"
    )
    engine_deadline_seconds: float = Field(
        120, gt=0, le=3600, description="the longest one engine call may take in all"
    )
    lease_seconds: float | None = Field(
        None,
        gt=0,
        le=7200,
        description="how long a claim holds; ENGINE_DEADLINE_SECONDS + 30 if unset",
    )
    rate_limit: Rate | None = Field(
        None, description="calls of the API by each token, such as 120/minute; not limited if unset"
    )
    sockets_per_user: int = Field(
        100, ge=1, description="WebSockets that a user may have open at a web process"
    )
    quota_minutes_per_day: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="minutes of sound that a user may use in a day; unset: not limited",
    )
    quota_minutes_per_month: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="minutes of sound that a user may use in a month",
    )
    quota_jobs_in_flight: int | None = Field(
        None, ge=0, description="jobs of a user that have not ended, at the same time"
    )
    quota_upload_bytes: int | None = Field(
        None,
        ge=0,
        description="bytes of a user's uploads that no job has taken yet",
    )
    spending_cap_usd_per_month: Dollars | None = Field(
        None, description="US dollars for engine calls of all users in a month"
    )
    spending_cap_user_usd_per_month: Dollars | None = Field(
        None, description="US dollars for engine calls of one user in a month"
    )
    engine_prices: Prices = Field(
        {},
        description="US dollars a minute of sound, as engine=price by commas; the list price,"
        " where it is known, if unset",
    )
    dead_letter_retry_hours: float | None = Field(
        None,
        gt=0,
        le=8760,
        description="hours after which chunks that failed for good of something that passes are"
        " tried again, three times at most; never if unset",
    )
    audio_retention_days: float | None = Field(
        None,
        gt=0,
        le=36500,
        description="days after a job's end until its uploaded audio is removed; never if unset",
    )
    transcript_retention_days: float | None = Field(
        None,
        gt=0,
        le=36500,
        description="days after a job's end until the whole job is removed; never if unset",
    )
    uncertain_below: float = Field(
        0.5,
        ge=0,
        le=1,
        description="words with less confidence are listed as uncertain in the JSON export",
    )
    web_processes: int = Field(1, ge=1, le=64, description="processes that answer requests")
    worker_processes: int = Field(
        2, ge=1, le=64, description="processes of the worker for remote engines"
    )
    worker_threads: int = Field(
        128, ge=1, le=1024, description="threads in each of them: engine calls at once"
    )
    local_processes: int = Field(
        os.cpu_count() or 1,
        ge=1,
        le=256,
        description="child processes for local engines; the number of cores if unset",
    )
    web_host: str = Field("127.0.0.1", description="the address that the web server listens on")
    web_port: int | None = Field(
        None, ge=1, le=65535, description="its port; 8000 or the next free one if unset"
    )
    secret_key: str = Field(
        "", description="Django's signing key; made and kept under var/ if unset"
    )
    allowed_hosts: str = Field(
        "localhost,127.0.0.1,[::1]", description="host names that the service answers to, by commas"
    )
    csrf_trusted_origins: str = Field(
        "", description="origins behind a proxy that may post forms, by commas"
    )
    cors_allowed_origins: str = Field(
        "", description="origins whose pages may call the API with a token, by commas"
    )
    https_only: bool = Field(
        False, description="callers reach the service by HTTPS only; plain HTTP is sent there"
    )
    webhook_allow_http: bool = Field(
        False, description="whether webhooks may go to http:// addresses as well"
    )
    webhook_allowed_networks: str = Field(
        "", description="networks besides the public ones that webhooks may go to, by commas"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="the least severe message that is logged"
    )

    @field_validator("var_dir", "audio_root")
    @classmethod
    def _relative_to_the_checkout(cls, path: Path) -> Path:
        """Wherever a command is called from, it means the same folder."""
        return BASE_DIR / path if path != Path() else path

    @field_validator("cors_allowed_origins", "csrf_trusted_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        for origin in listed(value):
            if not re.fullmatch(r"https?://[^/?#@\s]+", origin):
                raise ValueError(f"{origin!r} is no origin such as https://app.example.org")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: str) -> str:
        """Django takes what is no host's name as well, and then answers to nobody."""
        for host in listed(value):
            if not re.fullmatch(r"[^/:@\s]+|\[[0-9A-Fa-f:.]+\]", host):
                raise ValueError(f"{host!r} is no host such as example.org, without port")
        return value

    @field_validator("whisper_model")
    @classmethod
    def _folder_of_the_checkout(cls, model: str) -> str:
        folder = BASE_DIR / model
        return str(folder) if "/" in model and folder.is_dir() else model

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        for variable, names in (
            ("ASR_ENGINE", (self.asr_engine,)),
            ("ASR_FALLBACK", self.fallback_engines),
        ):
            for name in names:
                if name not in ENGINES:
                    raise ValueError(f"{variable} names {name!r}, not one of {', '.join(ENGINES)}")
                self._check_engine(f"{variable} names {name}", name)
        if self._names_whisper_model:
            self._check_engine(f"WHISPER_MODEL is {self.whisper_model!r}", "faster-whisper")
        shortest_lease = self.engine_deadline_seconds + WRITE_SECONDS
        if self.lease_seconds and self.lease_seconds < shortest_lease:
            raise ValueError(
                f"LEASE_SECONDS must be at least ENGINE_DEADLINE_SECONDS + {WRITE_SECONDS}"
            )
        self._check_storage()
        for name, url, schemes in (
            ("DATABASE_URL", self.database_url, {"postgres", "postgresql", "sqlite"}),
            ("REDIS_URL", self.redis_url, {"redis", "rediss", "unix"}),
            ("OPENAI_BASE_URL", self.openai_base_url, {"http", "https"}),
            ("DEEPGRAM_BASE_URL", self.deepgram_base_url, {"http", "https"}),
        ):
            if url and urlsplit(url).scheme not in schemes:
                raise ValueError(f"{name} must begin with one of {', '.join(sorted(schemes))}")
        return self

    @model_validator(mode="after")
    def _caps_can_hold(self) -> Self:
        """A cap on spending says nothing of calls whose price nobody knows."""
        if self.spending_cap_usd_per_month is None and self.spending_cap_user_usd_per_month is None:
            return self
        for name in (self.asr_engine, *self.fallback_engines):
            engine = registry.build(name, pool=ChildPool(1), options=self.engine_options(name))
            if name not in self.engine_prices and engine.capabilities.price_per_minute is None:
                raise ValueError(
                    f"a spending cap is set, but what {name} costs is not known: name it in"
                    f" ENGINE_PRICES, such as {name}=0.006"
                )
        return self

    def _check_storage(self) -> None:
        if self.audio_storage_url and self.audio_root != Path():
            raise ValueError("AUDIO_STORAGE_URL and AUDIO_ROOT are both set; keep one")
        if bool(self.aws_access_key_id) != bool(self.aws_secret_access_key):
            raise ValueError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY need each other")
        self.audio_storage()

    def audio_storage(self) -> dict[str, Any]:
        """The entry `audio` of Django's STORAGES. Raises ValueError."""
        if not self.audio_storage_url:
            return {"BACKEND": "jobs.storage.local.LocalAudioStorage"}
        options = s3_options(self.audio_storage_url, allow_http=self.audio_storage_allow_http)
        if self.aws_access_key_id:
            options["credentials"] = {
                name: value
                for name in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
                if (value := getattr(self, name))
            }
        return {"BACKEND": "jobs.storage.s3.S3AudioStorage", "OPTIONS": options}

    def audio_origins(self) -> list[str]:
        """Where browsers get audio from, beside this service."""
        options = self.audio_storage().get("OPTIONS")
        if options is None:
            return []
        return origins(options, os.environ.get("AWS_DEFAULT_REGION") or "us-east-1")

    @property
    def _names_whisper_model(self) -> bool:
        return "whisper_model" in self.model_fields_set

    def _check_engine(self, wish: str, name: str) -> None:
        """An engine that is meant to be used must have all that it needs."""
        try:
            registry.build(name, pool=ChildPool(1), options=self.engine_options(name))
        except EngineMisconfigured as error:
            raise ValueError(f"{wish}: {error.detail}") from None

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _networks(cls, networks: str) -> str:
        for network in listed(networks):
            ip_network(network)
        return networks

    @property
    def webhook_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(network) for network in listed(self.webhook_allowed_networks))

    @property
    def fallback_engines(self) -> tuple[str, ...]:
        return tuple(listed(self.asr_fallback))

    def engine_options(self, name: str) -> dict[str, Any]:
        """What that engine is made with: `OPENAI_MODEL` is the keyword `model` of openai.

        The default of WHISPER_MODEL is left out, and so the engine not configured, unless the
        engine is relied on: workers download the model of an engine that is configured.
        """
        prefix = variable_prefix(name)
        options = {
            variable.removeprefix(prefix): value
            for variable, value in self
            if variable.startswith(prefix) and value not in {"", None}
        }
        if name == "faster-whisper" and not (
            self._names_whisper_model or name in {self.asr_engine, *self.fallback_engines}
        ):
            del options["model"]
        return options

    @property
    def local_threads(self) -> int:
        """Chunks of local engines at once: more of them than models would only wait."""
        return (
            self.whisper_processes if self.asr_engine == "faster-whisper" else self.local_processes
        )

    @property
    def audio_folder(self) -> Path:
        return self.audio_root if self.audio_root != Path() else self.var_dir / "audio"

    @property
    def audio_place(self) -> str:
        """The folder of audio, or the bucket's address without its options, to be shown."""
        return self.audio_storage_url.partition("?")[0] or str(self.audio_folder)

    @property
    def broker_url(self) -> str:
        """REDIS_URL, or what the bundled server wrote down, or Redis' usual place."""
        written = self.var_dir / "run" / "redis.url"
        if self.redis_url:
            return self.redis_url
        return written.read_text().strip() if written.exists() else "redis://127.0.0.1:6379/0"

    @property
    def cache_url(self) -> str:
        """The broker's address with another database number; all else stays as it stands.

        Redis comes with the databases 0 to 15, so beyond 14 it is the number before.
        """
        url = urlsplit(self.broker_url)
        options = url.query.split("&") if url.query else []
        given = [option for option in options if option.startswith("db=")]
        path = unquote(url.path).replace("/", "")  # as redis-py reads it
        written = given[0].removeprefix("db=") if given else path
        number = int(written) if written.isdecimal() else 0
        other = number + 1 if number < LAST_REDIS_DATABASE else number - 1
        if given or url.scheme == "unix":
            options = [option for option in options if option not in given] + [f"db={other}"]
            path = url.path
        else:
            path = f"/{other}"
        query = f"?{'&'.join(options)}" if options else ""
        # Not by geturl(), which writes unix:///path as unix:/path.
        return f"{url.scheme}://{url.netloc}{path}{query}"

    def signing_key(self) -> str:
        """SECRET_KEY, or one that is made at the first start and kept."""
        if self.secret_key:
            return self.secret_key
        kept = self.var_dir / "secret_key"
        if not kept.exists():
            self.var_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Several processes may start at once: the first complete file is everybody's.
            descriptor, made = tempfile.mkstemp(dir=self.var_dir, prefix="secret_key.")
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(50))
            with suppress(FileExistsError):
                os.link(made, kept)
            Path(made).unlink()
        return kept.read_text()


def load(environ: Mapping[str, str] | None = None, dotenv: Path | None = None) -> Environment:
    """Read and check all variables.

    Raises:
        InvalidEnvironmentError: with one line that names the variable and what is wrong with it.
    """
    try:
        kept = dotenv_values(dotenv or BASE_DIR / ".env", interpolate=False)  # a key may hold "$"
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidEnvironmentError(f".env cannot be read: {error}") from None
    given: dict[str, str | None] = {**kept, **(os.environ if environ is None else environ)}
    values = {}
    for variable in (*Environment.model_fields, *_engine_variables()):
        value = _value_of(variable.upper(), given)
        if value:
            values[variable] = value
    try:
        return Environment(**values)  # type: ignore[arg-type]  # pydantic converts the strings
    except ValidationError as error:
        raise InvalidEnvironmentError(_one_line(error)) from None


def listed(value: str) -> list[str]:
    """The parts of a value that is given by commas."""
    return [part.strip() for part in value.split(",") if part.strip()]


def variable_prefix(engine: str) -> str:
    """What the variables of an engine begin with, in lower case."""
    name = "whisper" if engine == "faster-whisper" else engine.replace("-", "_")
    return f"{name}_"


def _engine_variables() -> Iterator[str]:
    """The variables of engines without a field above: one for each keyword, taken as text."""
    for engine in ENGINES:
        prefix = variable_prefix(engine)
        if not any(field.startswith(prefix) for field in Environment.model_fields):
            yield from (prefix + option for option in registry.options_of(engine))


def _value_of(name: str, given: Mapping[str, str | None]) -> str | None:
    value, path = given.get(name), given.get(f"{name}_FILE")
    if value and path:
        raise InvalidEnvironmentError(f"{name} and {name}_FILE are both set; keep one")
    if not path:
        return value
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidEnvironmentError(f"{name}_FILE cannot be read: {error}") from None


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "int_parsing":
        message = "not a whole number"
    name = str(first["loc"][0]).upper() if first["loc"] else ""
    return f"{name} is {first['input']!r}: {message}" if name else message
