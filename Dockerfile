# One static binary on an empty image, and a user with a number and no name. `docker build .` builds the binary in a
# container. `make image` takes the last stage alone, with the binary that this machine built.
FROM golang:1.26 AS build
WORKDIR /src
COPY . .
ARG VERSION=unknown
RUN make image-files VERSION="$VERSION"

FROM scratch
COPY --from=build /src/bin/image/keyquorum /
COPY --from=build --chown=65532:65532 /src/bin/image/volumes/ /
USER 65532:65532
EXPOSE 7400 7401 7402 7403
ENTRYPOINT ["/keyquorum"]
