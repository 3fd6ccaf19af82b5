# CPU image by default:
#   docker build --tag monoxkit .
# With the small CPU-only torch (its index stands on PyTorch's install page):
#   docker build --tag monoxkit --build-arg TORCH_INDEX=ADDRESS .
# GPU image: a base that holds Python >= 3.11, CUDA and, best, torch, which is then kept:
#   docker build --tag monoxkit:gpu --build-arg BASE=pytorch/pytorch:TAG --build-arg EXTRA=train,gpu .
# Serving alone, without torch:
#   docker build --tag monoxkit-serve --build-arg EXTRA=cpu,serve .
# Run as yourself on your own folder:
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" monoxkit doctor
ARG BASE=python:3.13-slim

FROM python:3.13-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY monox_kit monox_kit
COPY cli cli
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${BASE}
# A runtime (cpu or gpu, or with one of them openvino), train for everything beside predicting, serve for a server; the demo: all,cpu
ARG EXTRA=train,cpu
ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=
COPY --from=wheel /wheels /wheels
# An environment of its own, because a distribution's Python refuses pip; it sees the base's torch.
RUN python3 -m venv --system-site-packages /opt/monoxkit \
    && if case ",${EXTRA}," in *,train,*|*,all,*) ;; *) false ;; esac \
         && ! /opt/monoxkit/bin/python -c 'import torch'; then \
         /opt/monoxkit/bin/python -m pip install --no-cache-dir \
           ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} "${TORCH}"; \
       fi \
    && wheel="$(echo /wheels/monoxkit-*.whl)" \
    && /opt/monoxkit/bin/python -m pip install --no-cache-dir "${wheel}[${EXTRA}]" \
    && useradd --create-home --uid 10001 monoxkit \
    && mkdir /work \
    && chown 10001 /work
# `docker run --user` gives any user id: the cache of downloaded models must not need a home folder.
ENV PATH=/opt/monoxkit/bin:$PATH \
    HF_HOME=/tmp/huggingface \
    MONOXKIT_CACHE=/tmp/monoxkit \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /work
ENTRYPOINT ["monoxkit"]
CMD ["--help"]
