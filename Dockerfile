# docker build -t memory-layer . && docker run --init -p 8000:8000 -v memories:/data memory-layer
FROM python:3.11-slim-bookworm AS build
WORKDIR /app
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY core/__init__.py core/minilm.py core/
RUN python -m core.minilm models
# Needed for building alone.
RUN pip uninstall --yes onnx pip

FROM python:3.11-slim-bookworm
WORKDIR /app
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin memory-layer \
    && install --directory --owner=memory-layer --group=memory-layer --mode=0700 /data
COPY --from=build /venv /venv
COPY --from=build /app/models models
COPY . .
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOST=0.0.0.0 DATA_DIR=/data
USER memory-layer
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '8000') + '/healthz')"]
CMD ["python", "main.py"]
