"""Django's settings: one file, everything that varies comes from the environment (`env.py`)."""

from __future__ import annotations

import sys
from typing import Any

import dj_database_url
from corsheaders import defaults as cors
from csp import constants as csp

from asr.registry import ENGINES
from transcription_site import env as environment
from transcription_site.env import BASE_DIR

try:
    env = environment.load()
except environment.InvalidEnvironmentError as error:
    sys.exit(f"verbatim: {error}")

SECRET_KEY = env.signing_key()
DEBUG = False
ALLOWED_HOSTS = environment.listed(env.allowed_hosts)
CSRF_TRUSTED_ORIGINS = environment.listed(env.csrf_trusted_origins)

# What a proxy says of the scheme is believed by uvicorn, of the proxies in FORWARDED_ALLOW_IPS. So
# there is no SECURE_PROXY_SSL_HEADER, by which every caller could claim to have come by HTTPS.
SECURE_SSL_REDIRECT = env.https_only
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]  # asked from within, not through the proxy
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if env.https_only else 0
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.https_only
# What the other hosts of the domain speak is not this service's to say.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
X_FRAME_OPTIONS = "DENY"

# Scripts are files of this host and nothing else. Styles are set inline by the framework's pages.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [csp.NONE],
        "script-src": [csp.SELF],
        "style-src": [csp.SELF, csp.UNSAFE_INLINE],
        "img-src": [csp.SELF, "data:"],
        "font-src": [csp.SELF],
        # Sound that was handed in, also to a bucket, and what was chosen and not sent yet.
        "media-src": [csp.SELF, "blob:", *env.audio_origins()],
        "connect-src": [csp.SELF, *env.audio_origins()],
        "form-action": [csp.SELF],
        "frame-ancestors": [csp.NONE],
        "base-uri": [csp.NONE],
    }
}

# Without credentials: a page elsewhere needs a token, a session's cookie does not count there.
CORS_ALLOWED_ORIGINS = environment.listed(env.cors_allowed_origins)
CORS_ALLOW_HEADERS = [*cors.default_headers, "idempotency-key", "if-match", "x-request-id"]
CORS_EXPOSE_HEADERS = ["Content-Disposition", "ETag", "Location", "Retry-After", "X-Request-ID"]

INSTALLED_APPS = [
    "transcription_site.apps.VerbatimAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "corsheaders",
    "csp",
    "django_dramatiq",
    "django_guid",
    "django_htmx",
    "rest_framework",
    "knox",
    "drf_standardized_errors",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "jobs",
]

MIDDLEWARE = [
    "transcription_site.middleware.request_id_middleware",
    "django_guid.middleware.guid_middleware",
    "corsheaders.middleware.CorsMiddleware",
    "transcription_site.middleware.body_length_middleware",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "transcription_site.middleware.PageLanguage",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "transcription_site.urls"
ASGI_APPLICATION = "transcription_site.asgi.application"
APPEND_SLASH = False
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "front"
LOGOUT_REDIRECT_URL = "/sign-in?signed-out"
CSRF_FAILURE_VIEW = "transcription_site.problems.csrf_failure"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English")]  # those that have a catalogue; docs/pages.md tells how to add one
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = env.var_dir / "static"
STORAGES = {
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "audio": env.audio_storage(),
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]


def _database(url: str) -> dict[str, Any]:
    """Both engines as measured under load: neither loses a lock race, neither runs dry."""
    config: dict[str, Any] = dict(dj_database_url.parse(url))
    if config["ENGINE"] == "django.db.backends.sqlite3":
        # WAL without IMMEDIATE is worse than neither: a lock upgrade ignores the time-out.
        config["OPTIONS"] = {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            " PRAGMA busy_timeout=20000;",
        }
        # A file, so that worker threads and the test see the same rows.
        config["TEST"] = {"NAME": str(config["NAME"]) + ".test"}
        return config
    config["CONN_MAX_AGE"] = 0  # the pool keeps connections, not the threads
    config["CONN_HEALTH_CHECKS"] = True
    config["OPTIONS"] = {
        **config.get("OPTIONS", {}),
        "pool": {"min_size": 2, "max_size": 16, "timeout": 5},
        "options": "-c statement_timeout=15s -c lock_timeout=5s"
        " -c idle_in_transaction_session_timeout=30s",
    }
    return config


DATABASES = {"default": _database(env.database_url or f"sqlite:///{env.var_dir}/verbatim.sqlite3")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    env.var_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

# The broker keeps REDIS_URL's database to itself: Dramatiq's maintenance lists its keys.
BROKER_URL = env.broker_url

CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": env.cache_url,
        "KEY_PREFIX": "verbatim",
        "TIMEOUT": 24 * 3600,
        "OPTIONS": {
            "SERIALIZER": "transcription_site.cache_json.CompactJSONSerializer",
            "IGNORE_EXCEPTIONS": True,  # Redis away means slower, never wrong
            "SOCKET_CONNECT_TIMEOUT": 0.3,
            "SOCKET_TIMEOUT": 0.3,
            "CONNECTION_POOL_KWARGS": {"max_connections": 512},
        },
    }
}

DRAMATIQ_BROKER = {
    "BROKER": "transcription_site.broker.SafeRedisBroker",
    "OPTIONS": {"url": BROKER_URL},
    # Before-hooks run from top to bottom, after-hooks from bottom to top. The time limit stands
    # last so that it is disarmed before Retries talks to Redis: an interrupt there kills threads.
    "MIDDLEWARE": [
        "django_dramatiq.middleware.DbConnectionsMiddleware",
        "transcription_site.broker.WorkerLife",
        "transcription_site.broker.BoundedRetries",
        "transcription_site.broker.RedisGroupCallbacks",
        "dramatiq.middleware.TimeLimit",
    ],
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "jobs.api.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_THROTTLE_CLASSES": ["jobs.api.throttling.RateLimit"],
    "DEFAULT_PARSER_CLASSES": [
        "jobs.api.parsers.JSONParser",
        "jobs.api.parsers.MultiPartParser",
    ],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "rest_framework.renderers.BrowsableAPIRenderer",
    ],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "drf_standardized_errors.handler.exception_handler",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
DRF_STANDARDIZED_ERRORS = {
    "EXCEPTION_HANDLER_CLASS": "jobs.api.errors.ExceptionHandler",
    "EXCEPTION_FORMATTER_CLASS": "jobs.api.errors.ExceptionFormatter",
    "ENABLE_IN_DEBUG_FOR_UNHANDLED_EXCEPTIONS": True,
}
# Ours takes the place of knox's token, whose own table would only be in the way.
MIGRATION_MODULES = {"knox": None}
KNOX_TOKEN_MODEL = "jobs.AuthToken"  # noqa: S105  (a model, no password)
REST_KNOX = {"TOKEN_TTL": None}  # a token lives until it is revoked, unless made with an end
SPECTACULAR_SETTINGS = {
    "TITLE": "Verbatim",
    "DESCRIPTION": "Chunks of recorded speech in, one transcript out.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "ChunkStatusEnum": "jobs.models.ChunkStatus",
        "ErrorTypeEnum": ["validation_error", "client_error", "server_error"],
        "MistakeKindEnum": "jobs.models.MistakeKind",
        "WebhookEventEnum": "jobs.models.WebhookEvent",
        "PartStatusEnum": ["up", "degraded", "down"],
    },
}
DJANGO_GUID = {
    "GUID_HEADER_NAME": "X-Request-ID",
    "VALIDATE_GUID": True,
    "INTEGRATIONS": [],
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "request_id": {"()": "django_guid.log_filters.CorrelationId"},
        "callers_errors": {"()": "transcription_site.logs.CallersErrors"},
    },
    "formatters": {
        "line": {
            "format": "%(asctime)s %(levelname)s %(name)s [%(correlation_id)s] %(message)s",
        }
    },
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["request_id", "callers_errors"],
        }
    },
    "root": {"handlers": ["stderr"], "level": env.log_level},
    "loggers": {
        "django_guid": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
        "django.server": {"handlers": ["stderr"], "propagate": False},
    },
}

# --- Verbatim's own ---
VAR_DIR = env.var_dir
AUDIO_ROOT = env.audio_folder
if not env.audio_root.name and not env.audio_storage_url:
    AUDIO_ROOT.mkdir(parents=True, exist_ok=True)  # unset: the folder is ours to make
AUDIO_MAX_BYTES = env.audio_max_bytes
AUDIO_MAX_SECONDS = env.audio_max_seconds
RECORDING_MAX_BYTES = env.recording_max_bytes
RECORDING_MAX_SECONDS = env.recording_max_seconds
ASR_ENGINE = env.asr_engine
# What each engine is made with; an engine whose options do not suffice is not configured.
ENGINE_OPTIONS: dict[str, dict[str, Any]] = {name: env.engine_options(name) for name in ENGINES}
ENGINE_DEADLINE_SECONDS = env.engine_deadline_seconds
LEASE_SECONDS = env.lease_seconds or ENGINE_DEADLINE_SECONDS + 30
DEDUPLICATE = env.deduplicate
BREAKER_SECONDS = env.breaker_seconds
ASR_FALLBACK = env.fallback_engines
RATE_LIMIT = env.rate_limit
SOCKETS_PER_USER = env.sockets_per_user
QUOTA_MINUTES_PER_DAY = env.quota_minutes_per_day
QUOTA_MINUTES_PER_MONTH = env.quota_minutes_per_month
QUOTA_JOBS_IN_FLIGHT = env.quota_jobs_in_flight
QUOTA_UPLOAD_BYTES = env.quota_upload_bytes
SPENDING_CAP_USD_PER_MONTH = env.spending_cap_usd_per_month
SPENDING_CAP_USER_USD_PER_MONTH = env.spending_cap_user_usd_per_month
ENGINE_PRICES = env.engine_prices
DEAD_LETTER_RETRY_HOURS = env.dead_letter_retry_hours
AUDIO_RETENTION_DAYS = env.audio_retention_days
TRANSCRIPT_RETENTION_DAYS = env.transcript_retention_days
UNCERTAIN_BELOW = env.uncertain_below
WORKER_PROCESSES = env.worker_processes
WORKER_THREADS = env.worker_threads
LOCAL_PROCESSES = env.local_processes
LOCAL_THREADS = env.local_threads
WEBHOOK_ALLOW_HTTP = env.webhook_allow_http
WEBHOOK_ALLOWED_NETWORKS = env.webhook_networks

# A multipart form may carry a whole job of the largest files; all else is of the next limit.
REQUEST_MAX_BYTES = 24 * AUDIO_MAX_BYTES + 10_000_000
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000_000
DATA_UPLOAD_MAX_NUMBER_FILES = 100
