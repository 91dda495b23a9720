# The programs in a container: see docs/docker.md.
#
#   docker build -t im2txt .
#   docker build -t im2txt-gpu --build-arg IM2TXT_TENSORFLOW=gpu .

FROM python:3.11-slim-bookworm

# cpu or gpu, as in scripts/setup.sh.
ARG IM2TXT_TENSORFLOW=cpu

# Another user than root, who owns the project and the volume of data.
RUN useradd --create-home --uid 1000 im2txt \
    && mkdir /app /data \
    && chown im2txt:im2txt /app /data
USER 1000
WORKDIR /app

# The packages first: they are installed again only if a file here changes.
# By pyproject.toml the programs know that they are not in a wheel.
COPY --chown=im2txt:im2txt requirements*.txt requirements.lock pyproject.toml ./
COPY --chown=im2txt:im2txt scripts/setup.sh scripts/
COPY --chown=im2txt:im2txt im2txt/__init__.py im2txt/
COPY --chown=im2txt:im2txt im2txt/runtime im2txt/runtime
COPY --chown=im2txt:im2txt im2txt/text im2txt/text
RUN PIP_NO_CACHE_DIR=1 scripts/setup.sh --no-bazel

COPY --chown=im2txt:im2txt data data
COPY --chown=im2txt:im2txt im2txt im2txt

ENV PATH=/app/.venv/bin:${PATH} \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 6006 8080
CMD ["python3", "-m", "im2txt.serve", "--checkpoint_path=/data/pretrained", "--host=0.0.0.0"]
