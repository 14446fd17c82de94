FROM python:3.11.13-slim-bookworm AS builder

# `whisper` installs the engine faster-whisper too.
ARG EXTRA=
RUN python -m venv /venv
WORKDIR /build
COPY requirements.txt requirements-whisper.txt ./
RUN /venv/bin/pip install --no-cache-dir --only-binary=:all: -r "requirements${EXTRA:+-$EXTRA}.txt"


FROM python:3.11.13-slim-bookworm

ENV PATH=/venv/bin:$PATH \
    HF_HOME=/models \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# /audio, /models and /scratch are where the volumes go: they take their owner from here.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin verbatim \
    && install --directory --owner=verbatim --group=verbatim /audio /models /scratch
WORKDIR /app
COPY --from=builder /venv /venv
COPY . .
RUN SECRET_KEY=only-for-this-command python manage.py collectstatic --no-input --verbosity 0 \
    && rm -f var/*.sqlite3
USER 10001:10001
EXPOSE 8000
CMD ["uvicorn", "transcription_site.asgi:application", "--host", "0.0.0.0"]
