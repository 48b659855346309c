# Two stages: uv builds the environment, the image that runs holds Python and the environment alone.
FROM python:3.12-slim AS build
COPY --from=ghcr.io/astral-sh/uv:0.13.9 /uv /usr/local/bin/uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/pyflue
WORKDIR /build
# the dependencies first: they change less often than the code, so their layer is kept
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --frozen --no-dev --no-install-project
COPY pyflue pyflue
COPY web web
COPY workers workers
RUN uv sync --frozen --no-dev --no-editable

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home pyflue
COPY --from=build /opt/pyflue /opt/pyflue
ENV PATH=/opt/pyflue/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER pyflue
WORKDIR /project
EXPOSE 8000
# exec form: pyflue is process 1 and gets SIGTERM itself
ENTRYPOINT ["pyflue"]
CMD ["--help"]
