# famcli on a processor. See docs/install.md.

FROM python:3.13-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY famcli famcli
COPY tasks tasks
COPY configs configs
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:3.13-slim
COPY constraints.txt /tmp/
# The build of PyTorch for processors is smaller than that for GPUs; what it needs comes with famcli, as it is pinned.
RUN pip install --no-cache-dir --no-deps --index-url https://download.pytorch.org/whl/cpu torch==2.13.0
COPY --from=wheel /wheel /wheel
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt /wheel/*.whl
RUN useradd --create-home famcli && mkdir /work && chown famcli /work
USER famcli
WORKDIR /work
ENTRYPOINT ["famcli"]
CMD ["--help"]
