# semabench from its wheel: PyTorch brings CUDA, simplejpeg reads .beton files; no FFCV, no root.
#   docker build -t semabench .
#   docker run --gpus all --ipc host -u "$(id -u)" -v "$PWD:/work" semabench train experiment=clothing10
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:3.12-slim
# Triton, whose kernels are SEMA's, calls a C compiler for what launches them.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY constraints.txt /tmp/
COPY --from=wheel /wheel /wheel
RUN pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /wheel/*.whl)[sweep]" && rm -r /wheel
# For any user, also one whom the image does not know; Apptainer and enroot bring their own. With
# --read-only, give --tmpfs /home/user: what is compiled is kept there.
ENV HOME=/home/user USER=user
RUN mkdir -m 1777 /home/user
USER 1000
WORKDIR /work
ENTRYPOINT ["semabench"]
