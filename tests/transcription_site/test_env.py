"""The environment: what is read, in which order, and what stops the start."""

from __future__ import annotations

from pathlib import Path

import pytest
from dotenv import dotenv_values
from redis.connection import parse_url

from asr.child_pool import ChildPool
from asr.errors import EngineMisconfigured
from asr.registry import ENGINES
from tests.asr.tiny_whisper import shared_model
from transcription_site.env import BASE_DIR, Environment, InvalidEnvironmentError, load


@pytest.fixture
def dotenv(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_nothing_set_means_the_defaults(dotenv):
    env = load({}, dotenv)
    assert env == Environment.model_validate({})
    assert env.audio_folder == BASE_DIR / "var" / "audio"


def test_the_process_environment_goes_before_dotenv(dotenv):
    dotenv.write_text("WEB_PORT=8001\nWORKER_THREADS=3\n")
    env = load({"WEB_PORT": "8002"}, dotenv)
    assert (env.web_port, env.worker_threads) == (8002, 3)


def test_dotenv_takes_a_value_as_it_stands(dotenv):
    dotenv.write_text("OPENAI_API_KEY=sk-${HOME}$x\n")
    assert load({}, dotenv).openai_api_key == "sk-${HOME}$x"


def test_a_dotenv_that_is_no_text_is_one_clear_line(dotenv):
    dotenv.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidEnvironmentError, match=r"^\.env cannot be read: .*$"):
        load({}, dotenv)


def test_a_value_may_come_from_a_file_without_its_line_end(dotenv, tmp_path):
    (tmp_path / "secret").write_text("from a file\n")
    assert load({"SECRET_KEY_FILE": str(tmp_path / "secret")}, dotenv).secret_key == "from a file"


def test_an_empty_file_counts_as_not_set(dotenv, tmp_path):
    (tmp_path / "secret").write_text("\n")
    env = load({"OPENAI_API_KEY_FILE": str(tmp_path / "secret")}, dotenv)
    assert "api_key" not in env.engine_options("openai")


def test_an_empty_value_counts_as_not_set(dotenv):
    dotenv.write_text("ASR_ENGINE=openai\n")
    env = load({"ASR_ENGINE": "", "WEB_PORT": "", "DATABASE_URL_FILE": ""}, dotenv)
    assert (env.asr_engine, env.web_port) == ("pocketsphinx", None)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"WEB_PORT": "http"}, "WEB_PORT is 'http'"),
        ({"AUDIO_STORAGE_URL": "https://bucket"}, "AUDIO_STORAGE_URL must begin with s3://"),
        ({"AUDIO_STORAGE_URL": "s3://"}, "AUDIO_STORAGE_URL must name a bucket"),
        ({"AUDIO_STORAGE_URL": "s3://A_B"}, "AUDIO_STORAGE_URL must name a bucket"),
        ({"AUDIO_STORAGE_URL": "s3://k:s@bucket"}, "AUDIO_STORAGE_URL holds credentials"),
        ({"AUDIO_STORAGE_URL": "s3://audio?acl=x"}, "AUDIO_STORAGE_URL knows no option 'acl'"),
        (
            {"AUDIO_STORAGE_URL": "s3://audio?encryption=rot13"},
            "AUDIO_STORAGE_URL's encryption is none of AES256, aws:kms, none",
        ),
        (
            {"AUDIO_STORAGE_URL": "s3://audio?kmsKey=x"},
            "AUDIO_STORAGE_URL names a kmsKey without encryption=aws:kms",
        ),
        (
            {"AUDIO_STORAGE_URL": "s3://audio?endpoint=ftp://x"},
            "AUDIO_STORAGE_URL's endpoint is no http or https address",
        ),
        *[
            (
                {"AUDIO_STORAGE_URL": f"s3://audio?endpoint={endpoint}"},
                "AUDIO_STORAGE_URL's endpoint names no host",
            )
            for endpoint in ("https://", "https:///x", "https://:9000", "https://h:port")
        ],
        (
            {"AUDIO_STORAGE_URL": "s3://audio?endpoint=http://minio:9000"},
            "AUDIO_STORAGE_URL's endpoint has no TLS; AUDIO_STORAGE_ALLOW_HTTP=true takes it so",
        ),
        (
            {"AUDIO_STORAGE_URL": "s3://audio", "AUDIO_ROOT": "/audio"},
            "AUDIO_STORAGE_URL and AUDIO_ROOT are both set; keep one",
        ),
        (
            {"AWS_ACCESS_KEY_ID": "k"},
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY need each other",
        ),
        ({"WEB_PORT": "70000"}, "WEB_PORT is '70000'"),
        ({"WORKER_THREADS": "0"}, "WORKER_THREADS is '0'"),
        ({"ENGINE_DEADLINE_SECONDS": "-1"}, "ENGINE_DEADLINE_SECONDS is '-1'"),
        ({"DEAD_LETTER_RETRY_HOURS": "0"}, "DEAD_LETTER_RETRY_HOURS is '0'"),
        ({"DEAD_LETTER_RETRY_HOURS": "inf"}, "DEAD_LETTER_RETRY_HOURS is 'inf'"),
        ({"DEAD_LETTER_RETRY_HOURS": "nan"}, "DEAD_LETTER_RETRY_HOURS is 'nan'"),
        ({"DEAD_LETTER_RETRY_HOURS": "daily"}, "DEAD_LETTER_RETRY_HOURS is 'daily'"),
        ({"RATE_LIMIT": "120"}, "RATE_LIMIT is '120': a rate is 1 to 1000000 calls in a"),
        (
            {"RATE_LIMIT": "0/minute"},
            "RATE_LIMIT is '0/minute': a rate is 1 to 1000000 calls in a second, minute, hour or d",
        ),
        ({"RATE_LIMIT": "1.5/minute"}, "RATE_LIMIT is '1.5/minute': a rate is 1 to 1000000 calls"),
        ({"RATE_LIMIT": "5/fortnight"}, "RATE_LIMIT is '5/fortnight': a rate is 1 to 1000000"),
        ({"QUOTA_MINUTES_PER_DAY": "-1"}, "QUOTA_MINUTES_PER_DAY is '-1'"),
        ({"QUOTA_MINUTES_PER_MONTH": "nan"}, "QUOTA_MINUTES_PER_MONTH is 'nan'"),
        ({"QUOTA_JOBS_IN_FLIGHT": "1.5"}, "QUOTA_JOBS_IN_FLIGHT is '1.5'"),
        ({"SPENDING_CAP_USD_PER_MONTH": "-1"}, "SPENDING_CAP_USD_PER_MONTH is '-1'"),
        (
            {"SPENDING_CAP_USER_USD_PER_MONTH": "0.001"},
            "SPENDING_CAP_USER_USD_PER_MONTH is '0.001': not a sum in dollars and cents",
        ),
        ({"SPENDING_CAP_USD_PER_MONTH": "nan"}, "SPENDING_CAP_USD_PER_MONTH is 'nan'"),
        ({"ENGINE_PRICES": "parrot=1"}, "ENGINE_PRICES is 'parrot=1': 'parrot=1' is not one of"),
        ({"ENGINE_PRICES": "openai"}, "ENGINE_PRICES is 'openai': 'openai' is not one of"),
        ({"ENGINE_PRICES": "openai=-1"}, "ENGINE_PRICES is 'openai=-1': 'openai=-1' is not one"),
        (
            {
                "ASR_ENGINE": "deepgram",
                "DEEPGRAM_API_KEY": "k",
                "SPENDING_CAP_USD_PER_MONTH": "5",
            },
            "a spending cap is set, but what deepgram costs is not known: name it in ENGINE_PRICES",
        ),
        ({"AUDIO_RETENTION_DAYS": "0"}, "AUDIO_RETENTION_DAYS is '0'"),
        ({"TRANSCRIPT_RETENTION_DAYS": "nan"}, "TRANSCRIPT_RETENTION_DAYS is 'nan'"),
        ({"HTTPS_ONLY": "perhaps"}, "HTTPS_ONLY is 'perhaps'"),
        ({"CORS_ALLOWED_ORIGINS": "app.example.org"}, "CORS_ALLOWED_ORIGINS is 'app.example.org'"),
        (
            {"ALLOWED_HOSTS": "http://a.org"},
            "ALLOWED_HOSTS is 'http://a.org': 'http://a.org'",
        ),
        ({"ALLOWED_HOSTS": "a.org:443"}, "ALLOWED_HOSTS is 'a.org:443': 'a.org:443' is no host"),
        ({"QUOTA_MINUTES_PER_DAY": "1e400"}, "QUOTA_MINUTES_PER_DAY is '1e400'"),
        ({"QUOTA_MINUTES_PER_MONTH": "inf"}, "QUOTA_MINUTES_PER_MONTH is 'inf'"),
        ({"CORS_ALLOWED_ORIGINS": "*"}, "CORS_ALLOWED_ORIGINS is '*': '*' is no origin such as"),
        (
            {"CSRF_TRUSTED_ORIGINS": "https://a.example.org/path"},
            "CSRF_TRUSTED_ORIGINS is 'https://a.example.org/path': ",
        ),
        ({"UNCERTAIN_BELOW": "1.1"}, "UNCERTAIN_BELOW is '1.1'"),
        ({"UNCERTAIN_BELOW": "nan"}, "UNCERTAIN_BELOW is 'nan'"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL is 'loud'"),
        ({"WEBHOOK_ALLOW_HTTP": "perhaps"}, "WEBHOOK_ALLOW_HTTP is 'perhaps'"),
        ({"WEBHOOK_ALLOWED_NETWORKS": "10.0.0.0/33"}, "WEBHOOK_ALLOWED_NETWORKS is '10.0.0.0/33'"),
        ({"WEBHOOK_ALLOWED_NETWORKS": "10.0.0.1/8"}, "WEBHOOK_ALLOWED_NETWORKS is '10.0.0.1/8'"),
        ({"WHISPER_DEVICE": "tpu"}, "WHISPER_DEVICE is 'tpu'"),
        ({"WHISPER_COMPUTE_TYPE": "int4"}, "WHISPER_COMPUTE_TYPE is 'int4'"),
        ({"WHISPER_BATCH_SIZE": "0"}, "WHISPER_BATCH_SIZE is '0'"),
        ({"WHISPER_IDLE_SECONDS": "0"}, "WHISPER_IDLE_SECONDS is '0'"),
        (
            {"WHISPER_MODEL": "/nowhere/at/all"},
            "WHISPER_MODEL is '/nowhere/at/all': WHISPER_MODEL is neither a folder nor the name of",
        ),
        (
            {"WHISPER_MODEL": "./samples"},
            f"WHISPER_MODEL is '{BASE_DIR}/samples': the folder of the Whisper model lacks model",
        ),
        ({"ASR_ENGINE": "parrot"}, "ASR_ENGINE names 'parrot', not one of "),
        (
            {"ASR_ENGINE": "openai"},
            "ASR_ENGINE names openai: the engine openai needs OPENAI_API_KEY",
        ),
        (
            {"ASR_ENGINE": "deepgram"},
            "ASR_ENGINE names deepgram: the engine deepgram needs DEEPGRAM_API_KEY",
        ),
        ({"ASR_FALLBACK": "parrot"}, "ASR_FALLBACK names 'parrot', not one of "),
        ({"ASR_FALLBACK": "pocketsphinx,openai"}, "ASR_FALLBACK names openai: the engine openai"),
        ({"ASR_FALLBACK": "deepgram"}, "ASR_FALLBACK names deepgram: the engine deepgram needs"),
        (
            {"ASR_ENGINE": "deepgram", "DEEPGRAM_BASE_URL": "https://api.eu.deepgram.com"},
            "ASR_ENGINE names deepgram: the engine deepgram needs DEEPGRAM_API_KEY",
        ),
        ({"DEEPGRAM_BASE_URL": "localhost"}, "DEEPGRAM_BASE_URL must begin with one of http"),
        (
            {"ENGINE_DEADLINE_SECONDS": "60", "LEASE_SECONDS": "64.9"},
            "LEASE_SECONDS must be at least ENGINE_DEADLINE_SECONDS + 5",
        ),
        ({"LEASE_SECONDS": "7201"}, "LEASE_SECONDS is '7201'"),
        ({"BREAKER_SECONDS": "0.9"}, "BREAKER_SECONDS is '0.9'"),
        ({"DATABASE_URL": "mysql://host/name"}, "DATABASE_URL must begin with one of postgres"),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL must begin with one of redis"),
        ({"SECRET_KEY": "a", "SECRET_KEY_FILE": "b"}, "SECRET_KEY and SECRET_KEY_FILE are both"),
        ({"SECRET_KEY_FILE": "/nowhere/at/all"}, "SECRET_KEY_FILE cannot be read"),
    ],
)
def test_a_wrong_or_contradictory_value_is_one_line_that_names_it(dotenv, given, line):
    with pytest.raises(InvalidEnvironmentError) as caught:
        load(given, dotenv)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_wrong_address_is_not_repeated_with_its_password(dotenv):
    with pytest.raises(InvalidEnvironmentError) as caught:
        load({"DATABASE_URL": "mysql://user:hunter2@host/name"}, dotenv)
    assert "hunter2" not in str(caught.value)


def test_engines_that_stand_in_are_named_in_order(dotenv):
    env = load({"ASR_FALLBACK": " openai, pocketsphinx,", "OPENAI_API_KEY": "k"}, dotenv)
    assert env.fallback_engines == ("openai", "pocketsphinx")
    assert load({}, dotenv).fallback_engines == ()


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("", None),
        ("120/minute", (120, 60)),
        (" 5 / second ", (5, 1)),
        ("1/day", (1, 86400)),
        ("9/hour", (9, 3600)),
    ],
)
def test_a_rate_is_a_number_and_a_period(dotenv, text, rate):
    assert load({"RATE_LIMIT": text}, dotenv).rate_limit == rate


def test_limits_are_off_unless_set_and_0_is_a_limit(dotenv):
    quotas = ("QUOTA_MINUTES_PER_DAY", "QUOTA_MINUTES_PER_MONTH", "QUOTA_JOBS_IN_FLIGHT")
    names = (*quotas, "SPENDING_CAP_USD_PER_MONTH", "SPENDING_CAP_USER_USD_PER_MONTH")
    unset, zero = load({}, dotenv), load(dict.fromkeys(names, "0"), dotenv)
    assert {getattr(unset, name.lower()) for name in names} == {None}
    assert [getattr(zero, name.lower()) for name in names] == [0] * 5


def test_with_a_price_that_the_operator_names_a_cap_can_hold(dotenv):
    given = {"ASR_ENGINE": "deepgram", "DEEPGRAM_API_KEY": "k", "SPENDING_CAP_USD_PER_MONTH": "5"}
    env = load(given | {"ENGINE_PRICES": " deepgram=0.0043, openai = 0.006 "}, dotenv)
    assert env.engine_prices == {"deepgram": 0.0043, "openai": 0.006}


def test_dead_letters_are_retried_by_schedule_only_when_asked_for(dotenv):
    assert load({}, dotenv).dead_letter_retry_hours is None
    assert load({"DEAD_LETTER_RETRY_HOURS": ""}, dotenv).dead_letter_retry_hours is None
    assert load({"DEAD_LETTER_RETRY_HOURS": "0.5"}, dotenv).dead_letter_retry_hours == 0.5


def test_audio_lies_in_a_folder_unless_a_bucket_is_named(dotenv):
    assert load({}, dotenv).audio_storage() == {"BACKEND": "jobs.storage.local.LocalAudioStorage"}
    url = "s3://audio/some/where/?endpoint=http://minio:9000&region=eu-north-1"
    given = {
        "AUDIO_STORAGE_URL": f"{url}&encryption=aws:kms&kmsKey=alias/a",
        "AUDIO_STORAGE_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
    }
    assert load(given, dotenv).audio_storage()["OPTIONS"] == {
        "bucket": "audio",
        "prefix": "some/where/",
        "endpoint": "http://minio:9000",
        "region": "eu-north-1",
        "encryption": "aws:kms",
        "kms_key": "alias/a",
        "credentials": {"aws_access_key_id": "k", "aws_secret_access_key": "s"},
    }
    options = load({"AUDIO_STORAGE_URL": "s3://audio?encryption=none"}, dotenv).audio_storage()
    assert options["OPTIONS"] == {"bucket": "audio", "prefix": "", "encryption": None}


@pytest.mark.parametrize("engine", ["openai", "deepgram"])
def test_a_server_of_ones_own_needs_no_key(dotenv, engine):
    url = "http://localhost:9000/v1"
    env = load({"ASR_ENGINE": engine, f"{engine.upper()}_BASE_URL": url}, dotenv)
    assert env.engine_options(engine)["base_url"] == url
    assert "api_key" not in env.engine_options(engine)


def test_an_engines_options_are_its_variables(dotenv):
    env = load({"DEEPGRAM_API_KEY": "k", "OPENAI_MODEL": "m", "OPENAI_ORG_ID": "o"}, dotenv)
    url = "https://api.deepgram.com"
    assert env.engine_options("deepgram") == {"api_key": "k", "base_url": url, "model": "nova-3"}
    assert env.engine_options("openai") == {"base_url": "https://api.openai.com/v1", "model": "m"}
    assert env.engine_options("pocketsphinx") == {}


class AddedEngine:
    """An engine that the environment has no field for."""

    def __init__(self, *, pool: ChildPool, address: str = "", secret: str | None = None) -> None:
        if not address:
            raise EngineMisconfigured("the engine an-added needs AN_ADDED_ADDRESS")


def test_an_added_engine_is_given_the_variables_that_its_constructor_names(
    dotenv, tmp_path, monkeypatch
):
    monkeypatch.setitem(ENGINES, "an-added", f"{__name__}.AddedEngine")
    (tmp_path / "secret").write_text("hush\n")
    given = {
        "AN_ADDED_ADDRESS": "http://there",
        "AN_ADDED_SECRET_FILE": str(tmp_path / "secret"),
        "AN_ADDED_POOL": "no option",
        "AN_ADDED_OTHER": "no option",
        "ASR_ENGINE": "an-added",
    }
    env = load(given, dotenv)
    assert env.engine_options("an-added") == {"address": "http://there", "secret": "hush"}
    with pytest.raises(InvalidEnvironmentError) as caught:
        load({"ASR_ENGINE": "an-added"}, dotenv)
    assert str(caught.value) == (
        "ASR_ENGINE names an-added: the engine an-added needs AN_ADDED_ADDRESS"
    )


def test_a_whisper_model_is_a_name_or_a_folder_seen_from_the_checkout(
    dotenv, tmp_path, monkeypatch
):
    monkeypatch.setattr("transcription_site.env.BASE_DIR", tmp_path)
    (tmp_path / "mine").symlink_to(shared_model())
    assert load({"WHISPER_MODEL": "large-v3"}, dotenv).whisper_model == "large-v3"
    assert load({"WHISPER_MODEL": "mine"}, dotenv).whisper_model == "mine"
    assert load({"WHISPER_MODEL": "./mine"}, dotenv).whisper_model == str(tmp_path / "mine")
    assert load({"WHISPER_MODEL": "org/model"}, dotenv).whisper_model == "org/model"


def test_a_whisper_model_beside_another_default_engine_needs_the_extra(dotenv, monkeypatch):
    monkeypatch.setattr("asr.engines.faster_whisper.find_spec", lambda name: None)
    load({"WHISPER_DEVICE": "cpu"}, dotenv)
    with pytest.raises(InvalidEnvironmentError) as caught:
        load({"WHISPER_MODEL": "small"}, dotenv)
    assert str(caught.value) == (
        "WHISPER_MODEL is 'small': the engine faster-whisper is not installed: `make whisper`"
    )


@pytest.mark.parametrize(
    ("given", "model"),
    [
        ({}, None),
        ({"WHISPER_DEVICE": "cpu"}, None),
        ({"WHISPER_MODEL": "small"}, "small"),
        ({"ASR_ENGINE": "faster-whisper"}, "small"),
        ({"ASR_FALLBACK": "pocketsphinx,faster-whisper"}, "small"),
        ({"ASR_ENGINE": "faster-whisper", "WHISPER_MODEL": "tiny"}, "tiny"),
    ],
)
def test_a_whisper_model_is_had_only_where_somebody_wants_it(dotenv, given, model):
    options = load(given, dotenv).engine_options("faster-whisper")
    assert options.get("model") == model
    assert options["idle_seconds"] == 300


def test_no_more_chunks_are_taken_at_once_than_models_are_held(dotenv):
    given = {"LOCAL_PROCESSES": "7", "WHISPER_PROCESSES": "2"}
    assert load(given, dotenv).local_threads == 7
    assert load({**given, "ASR_ENGINE": "faster-whisper"}, dotenv).local_threads == 2


def test_the_bundled_server_is_found_by_what_it_wrote_down(dotenv, tmp_path):
    env = load({"VAR_DIR": str(tmp_path)}, dotenv)
    assert env.broker_url == "redis://127.0.0.1:6379/0"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "redis.url").write_text("redis://127.0.0.1:7000/0\n")
    assert env.broker_url == "redis://127.0.0.1:7000/0"
    set_one = load({"VAR_DIR": str(tmp_path), "REDIS_URL": "redis://elsewhere/0"}, dotenv)
    assert set_one.broker_url == "redis://elsewhere/0"


@pytest.mark.parametrize(
    ("broker", "cache"),
    [
        ("redis://h/0", "redis://h/1"),
        ("redis://h:6379/3", "redis://h:6379/4"),
        ("redis://h/14", "redis://h/15"),
        ("redis://h/15", "redis://h/14"),  # a stock Redis has no 16
        ("redis://h/63", "redis://h/62"),
        ("redis://h", "redis://h/1"),
        ("redis://h/", "redis://h/1"),
        ("redis://h/?db=2", "redis://h/?db=3"),
        ("redis://u:p%2F1@[::1]:6379/0", "redis://u:p%2F1@[::1]:6379/1"),
        ("rediss://h/0?ssl_cert_reqs=none", "rediss://h/1?ssl_cert_reqs=none"),
        (
            "rediss://h?ssl_ca_certs=/etc/ca%20b.pem&protocol=3",
            "rediss://h/1?ssl_ca_certs=/etc/ca%20b.pem&protocol=3",
        ),
        ("unix:///run/redis.sock", "unix:///run/redis.sock?db=1"),
        ("unix:///run/redis.sock?db=0", "unix:///run/redis.sock?db=1"),
        ("unix:///run/7?db=15", "unix:///run/7?db=14"),
        ("unix://u:p@/run/redis.sock?protocol=3", "unix://u:p@/run/redis.sock?protocol=3&db=1"),
    ],
)
def test_the_cache_is_in_another_database_of_the_same_redis(dotenv, broker, cache):
    env = load({"REDIS_URL": broker}, dotenv)
    assert (env.broker_url, env.cache_url) == (broker, cache)
    of_broker, of_cache = parse_url(broker), parse_url(cache)
    number = of_cache.pop("db")
    assert number != of_broker.pop("db", 0)
    assert 0 <= number <= 15 or "63" in broker
    assert of_cache == of_broker


def test_a_signing_key_is_made_once_and_is_private(dotenv, tmp_path):
    env = load({"VAR_DIR": str(tmp_path / "new")}, dotenv)
    key = env.signing_key()
    assert len(key) >= 50
    assert env.signing_key() == key
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["secret_key"]
    assert (tmp_path / "new" / "secret_key").stat().st_mode & 0o777 == 0o600


def test_the_example_file_shows_every_variable_with_its_default():
    shown = dotenv_values(BASE_DIR / ".env.example", interpolate=False)
    assert set(shown) == {field.upper() for field in Environment.model_fields}
    expected = {name: value for name, value in shown.items() if value}
    defaults = {name: str(Environment.model_fields[name.lower()].default) for name in expected}
    assert expected == defaults
    copied, bare = load(expected, Path("/nowhere")), Environment.model_validate({})
    assert copied == bare
    for engine in ENGINES:  # one that was named would be fetched by the workers
        assert copied.engine_options(engine) == bare.engine_options(engine)


def test_networks_are_listed_by_commas(dotenv):
    env = load({"WEBHOOK_ALLOWED_NETWORKS": " 10.0.0.0/8, fd00::/8,192.168.1.7 ,"}, dotenv)
    assert [str(n) for n in env.webhook_networks] == ["10.0.0.0/8", "fd00::/8", "192.168.1.7/32"]
    assert load({}, dotenv).webhook_networks == ()
