//! The route table: which handler answers which method and path. Pure.
//!
//! A pattern's `{}` stands for one segment, `{*}` for one or more (image names have slashes).

use std::future::Future;
use std::pin::Pin;

use hyper::Method;

use super::answer::Answer;
use super::error::ApiError;
use super::request::{Request, decode};
use super::{API_VERSION, API_VERSION_MIN, Context};
use super::{dependency, distribution, event, logs, networks, node, service, swarm, system, task};

/// What a handler will have answered.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Answer, ApiError>> + Send + 'a>>;
/// A handler.
pub type Handler = for<'a> fn(&'a Context, &'a Request) -> Answering<'a>;

struct Route {
    method: Method,
    pattern: &'static str,
    handler: Handler,
}

macro_rules! routes {
    ($($method:ident $pattern:literal => $handler:path;)*) => {
        &[$(Route {
            method: Method::$method,
            pattern: $pattern,
            handler: |context, request| Box::pin($handler(context, request)),
        }),*]
    };
}

const ROUTES: &[Route] = routes! {
    GET "/_ping" => system::ping;
    GET "/version" => system::version;
    GET "/info" => system::info;
    GET "/events" => event::stream;
    GET "/distribution/{*}/json" => distribution::inspect;

    GET "/swarm" => swarm::inspect;
    POST "/swarm/init" => swarm::init;
    POST "/swarm/join" => swarm::join;
    POST "/swarm/leave" => swarm::leave;
    POST "/swarm/update" => swarm::update;
    GET "/swarm/unlockkey" => swarm::unlock_key;
    POST "/swarm/unlock" => swarm::unlock;

    GET "/nodes" => node::list;
    GET "/nodes/{}" => node::inspect;
    POST "/nodes/{}/update" => node::update;
    DELETE "/nodes/{}" => node::remove;

    GET "/services" => service::list;
    POST "/services/create" => service::create;
    GET "/services/{}" => service::inspect;
    POST "/services/{}/update" => service::update;
    DELETE "/services/{}" => service::remove;
    GET "/services/{}/logs" => logs::service;

    GET "/tasks" => task::list;
    GET "/tasks/{}" => task::inspect;
    GET "/tasks/{}/logs" => logs::task;

    GET "/secrets" => dependency::secret::list;
    POST "/secrets/create" => dependency::secret::create;
    GET "/secrets/{}" => dependency::secret::inspect;
    POST "/secrets/{}/update" => dependency::secret::update;
    DELETE "/secrets/{}" => dependency::secret::remove;

    GET "/configs" => dependency::config::list;
    POST "/configs/create" => dependency::config::create;
    GET "/configs/{}" => dependency::config::inspect;
    POST "/configs/{}/update" => dependency::config::update;
    DELETE "/configs/{}" => dependency::config::remove;

    GET "/networks" => networks::list;
    POST "/networks/create" => networks::create;
    POST "/networks/prune" => networks::prune;
    GET "/networks/{}" => networks::inspect;
    DELETE "/networks/{}" => networks::remove;

    // What there is none of. Clients poll the lists and look everywhere for a name.
    GET "/containers/json" => system::none;
    GET "/containers/{}/json" => system::no_container;
    GET "/images/json" => system::none;
    GET "/images/{*}/json" => system::no_image;
    GET "/volumes" => system::no_volumes;
    GET "/volumes/{}" => system::no_volume;
    GET "/plugins" => system::none;
    GET "/plugins/{*}/json" => system::no_plugin;
};

/// Parts of Docker's API that are not here, and what to say about them.
const NOT_SUPPORTED: &[(&str, &str)] = &[
    ("containers", "containers outside of services are not supported: create a service"),
    ("images", "images are not managed here: every board pulls what its tasks need"),
    ("build", "building images is not supported: build elsewhere and push to a registry"),
    ("networks", "connecting containers to networks is not supported: services name the networks of their tasks"),
    ("volumes", "volumes are made on a board when a task that mounts them starts; they cannot be managed here yet"),
    ("plugins", "plugins are not supported"),
    ("exec", "running commands in containers is not supported yet"),
    ("auth", "checking registry credentials is not supported yet"),
    ("system", "disk usage is not supported yet"),
    ("commit", "making images of containers is not supported"),
    ("session", "build sessions are not supported"),
    ("grpc", "build sessions are not supported"),
];

/// The handler of a path, and what its `{…}` stands for.
///
/// # Errors
/// 400 for a version we don't speak, 404 for an unknown path, 501 for a part of Docker's API that is not here.
pub fn find(method: &Method, path: &str) -> Result<(Handler, String), ApiError> {
    let path = without_version(path)?;
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let routes = ROUTES.iter().filter(|route| route.method == *method);
    if let Some((route, name)) = routes.filter_map(|r| matches(r.pattern, &segments).map(|name| (r, name))).next() {
        return Ok((route.handler, name));
    }
    match NOT_SUPPORTED.iter().find(|(first, _)| segments.first() == Some(first)) {
        Some((_, why)) => Err(ApiError::not_supported(*why)),
        None => Err(ApiError::new(hyper::StatusCode::NOT_FOUND, "page not found")),
    }
}

/// Whether a pattern matches; what its `{…}` stands for, decoded.
fn matches(pattern: &str, segments: &[&str]) -> Option<String> {
    let pattern: Vec<&str> = pattern.trim_start_matches('/').split('/').collect();
    let Some(hole) = pattern.iter().position(|part| part.starts_with('{')) else {
        return (pattern == segments).then(String::new);
    };
    let (head, tail) = (&pattern[..hole], &pattern[hole + 1..]);
    let inner = segments.strip_prefix(head)?.strip_suffix(tail)?;
    let fits = if pattern[hole] == "{*}" { !inner.is_empty() } else { inner.len() == 1 };
    let name = decode(&inner.join("/"), false);
    (fits && !name.is_empty()).then_some(name)
}

/// The version of Docker's API that a path asks for; the newest if it names none.
pub fn version(path: &str) -> (u32, u32) {
    let text = split_version(path).map_or(API_VERSION, |(version, _)| version);
    let number = |text: &str| text.parse().unwrap_or_default();
    text.split_once('.').map_or((0, 0), |(major, minor)| (number(major), number(minor)))
}

/// Cuts `/v1.47` off, if it is there.
fn without_version(path: &str) -> Result<&str, ApiError> {
    let Some((version, rest)) = split_version(path) else { return Ok(path) };
    let number = |text: &str| text.split_once('.').map(|(a, b)| (a.parse::<u32>().ok(), b.parse::<u32>().ok()));
    let why = if number(version) > number(API_VERSION) {
        format!("client version {version} is too new. Maximum supported API version is {API_VERSION}")
    } else if number(version) < number(API_VERSION_MIN) {
        format!(
            "client version {version} is too old. Minimum supported API version is {API_VERSION_MIN}, \
             please upgrade your client to a newer version"
        )
    } else {
        return Ok(rest);
    };
    Err(ApiError::bad_request(why))
}

/// `/v1.47/info` as (`1.47`, `/info`).
fn split_version(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/v")?;
    let end = rest.find('/')?;
    let (version, rest) = rest.split_at(end);
    let (major, minor) = version.split_once('.')?;
    let is_number = |text: &str| (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(major) && is_number(minor)).then_some((version, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: Method, path: &str, want: Result<&str, u16>) {
        let got = find(&method, path).map(|(_, name)| name).map_err(|error| error.status.as_u16());
        assert_eq!(got, want.map(str::to_owned), "{method} {path}");
    }

    #[test]
    fn paths() {
        check(Method::GET, "/_ping", Ok(""));
        check(Method::GET, "/v1.47/services", Ok(""));
        check(Method::GET, "/v1.24/services/web", Ok("web"));
        check(Method::GET, "/services/a%20b", Ok("a b"));
        check(Method::POST, "/services/create", Ok(""));
        check(Method::POST, "/services/web/update", Ok("web"));
        check(Method::GET, "/distribution/127.0.0.1:5000/a/b:1/json", Ok("127.0.0.1:5000/a/b:1"));
        check(Method::GET, "/v1.47/distribution/UPPER%20CASE/json", Ok("UPPER CASE"));
        check(Method::GET, "/images/a/b/json", Ok("a/b"));
        check(Method::GET, "/images/json", Ok(""));
        for unknown in
            ["/", "", "/nosuch", "/v1.47", "/v1.47/", "/services/", "/services/a/b", "/vx/info", "//", "/v1./info"]
        {
            check(Method::GET, unknown, Err(404));
        }
        check(Method::PUT, "/services/web", Err(404));
        check(Method::POST, "/containers/create", Err(501));
        check(Method::POST, "/v1.47/networks/create", Ok(""));
        check(Method::DELETE, "/networks/n", Ok("n"));
        check(Method::POST, "/networks/n/connect", Err(501));
        check(Method::POST, "/secrets/create", Ok(""));
        check(Method::DELETE, "/configs/a.b", Ok("a.b"));
        check(Method::POST, "/build", Err(501));
        check(Method::GET, "/system/df", Err(501));
    }

    #[track_caller]
    fn check_version(path: &str, want: &str) {
        assert_eq!(find(&Method::GET, path).map(|(_, name)| name).expect_err(path).message, want);
    }

    #[test]
    fn versions_of_paths() {
        for (path, want) in [("/info", (1, 47)), ("/v1.41/info", (1, 41)), ("/v1.9/x", (1, 9)), ("", (1, 47))] {
            assert_eq!(version(path), want, "{path}");
        }
    }

    #[test]
    fn versions() {
        check_version("/v1.99/info", "client version 1.99 is too new. Maximum supported API version is 1.47");
        check_version("/v2.0/info", "client version 2.0 is too new. Maximum supported API version is 1.47");
        check_version(
            "/v1.12/info",
            "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
        );
    }
}
