# One static binary on an empty image, and a user with a number and no name. `docker build .` builds the binary in a
# container. `make image` takes the one that this machine built: an engine without BuildKit builds all stages down to
# its target, so that target comes before the stage that needs a network.
FROM scratch AS base
USER 65532:65532
EXPOSE 7400 7401 7402
ENTRYPOINT ["/keyquorum"]

FROM base AS prebuilt
COPY bin/image/keyquorum /
COPY --chown=65532:65532 bin/image/volumes/ /

FROM golang:1.26 AS build
WORKDIR /src
COPY . .
ARG VERSION=unknown
RUN make image-files VERSION="$VERSION"

FROM base
COPY --from=build /src/bin/image/keyquorum /
COPY --from=build --chown=65532:65532 /src/bin/image/volumes/ /
