# semabench from its wheel: PyTorch brings CUDA, simplejpeg reads .beton files; no FFCV, no root.
#   docker build -t semabench .
#   docker run --gpus all --ipc host -u "$(id -u)" -v "$PWD:/work" semabench train experiment=clothing10
# Under Slurm (enroot, Apptainer) any user runs it, and the file system may be read-only.
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
# What is compiled, and W&B's and matplotlib's files, go where any user may write.
ENV HOME=/tmp/home XDG_CACHE_HOME=/tmp/home/.cache NUMBA_CACHE_DIR=/tmp/home/numba \
    TRITON_CACHE_DIR=/tmp/home/triton TORCHINDUCTOR_CACHE_DIR=/tmp/home/inductor \
    MPLCONFIGDIR=/tmp/home/matplotlib
RUN mkdir -m 1777 /tmp/home
USER 1000
WORKDIR /work
ENTRYPOINT ["semabench"]
