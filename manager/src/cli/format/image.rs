//! Image names as people write them, and as the API wants them. Pure.

/// The name for a listing: without `docker.io/library/` and, next to a tag, without the digest.
pub(crate) fn familiar(image: &str) -> &str {
    let image = short(image);
    match image.split_once('@') {
        Some((name, _)) if tag(name).is_some() => name,
        _ => image,
    }
}

/// Adds `:latest` to a name that has neither tag nor digest, and drops Docker Hub's implied parts.
pub(crate) fn tagged(image: &str) -> String {
    let image = short(image);
    if image.contains('@') || tag(image).is_some() { image.to_owned() } else { format!("{image}:latest") }
}

/// Pins a tagged name to a digest.
pub(crate) fn pinned(image: &str, digest: &str) -> String {
    format!("{image}@{digest}")
}

/// Whether the name says which bytes it means.
pub(crate) fn has_digest(image: &str) -> bool {
    image.contains('@')
}

/// The registry that holds the image, as its credentials are filed: host, or Docker Hub's address.
pub(crate) fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => match host {
            "docker.io" | "index.docker.io" => HUB,
            host => host,
        },
        _ => HUB,
    }
}

/// How Docker's client files credentials for Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";

fn short(image: &str) -> &str {
    let Some(rest) = image.strip_prefix("docker.io/") else { return image };
    rest.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(rest)
}

fn tag(name: &str) -> Option<&str> {
    name.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (image, listed, sent) in [
            ("busybox", "busybox", "busybox:latest"),
            ("docker.io/library/busybox:1", "busybox:1", "busybox:1"),
            ("docker.io/me/app", "me/app", "me/app:latest"),
            ("127.0.0.1:5000/bb", "127.0.0.1:5000/bb", "127.0.0.1:5000/bb:latest"),
            ("127.0.0.1:5000/bb:1@sha256:ab", "127.0.0.1:5000/bb:1", "127.0.0.1:5000/bb:1@sha256:ab"),
            ("bb@sha256:ab", "bb@sha256:ab", "bb@sha256:ab"),
        ] {
            assert_eq!((familiar(image), tagged(image).as_str()), (listed, sent));
        }
    }

    #[test]
    fn registries() {
        assert_eq!(registry("busybox"), HUB);
        assert_eq!(registry("me/app"), HUB);
        assert_eq!(registry("localhost/app"), "localhost");
        assert_eq!(registry("ghcr.io/me/app:1"), "ghcr.io");
    }
}
