# The course in a container:  docker build -t s2flib .  &&  docker run --rm -p 8888:8888 s2flib
# Its tests:                  docker run --rm s2flib make test
FROM python:3.12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends make git chromium \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /course
COPY . .
RUN make setup PYTHON=python3.12
EXPOSE 8888
CMD ["make", "lab", "ARGS=--ip=0.0.0.0 --allow-root --no-browser"]
