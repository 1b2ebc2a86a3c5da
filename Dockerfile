# An image for head and workers of a Ray cluster on Kubernetes (docs/kuberay.yaml): docker build -t REGISTRY/kdstudy .
# torch brings its own CUDA libraries, so the plain image of Ray serves GPUs too; the node provides the driver.
ARG RAY_VERSION=2.60.0
FROM rayproject/ray:${RAY_VERSION}-py312
ARG RAY_VERSION
COPY --chown=ray . kdstudy
RUN pip install --no-cache-dir -e ./kdstudy boto3 ray==${RAY_VERSION}
RUN kdstudy --version
ENV RAY_USAGE_STATS_ENABLED=0
WORKDIR /home/ray/kdstudy
