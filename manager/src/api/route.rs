//! The route table: which handler answers which method and path, and what that takes. Pure.
//!
//! A pattern's `{}` stands for one segment, `{*}` for one or more (image names have slashes).

use std::future::Future;
use std::pin::Pin;

use hyper::Method;

use super::answer::Answer;
use super::error::ApiError;
use super::request::{Request, decode};
use super::{API_VERSION, API_VERSION_MIN, Context};
use super::{access, backup, dependency, distribution, event, logs, networks, node, service, swarm, system, task};

/// What a handler will have answered.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Answer, ApiError>> + Send + 'a>>;
/// A handler.
pub type Handler = for<'a> fn(&'a Context, &'a Request) -> Answering<'a>;

/// What whoever asks must be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To look.
    Read,
    /// To change something, or to make the manager act.
    Write,
    /// To see what lets somebody in. Who asked is kept, as of changes.
    Secret,
}

/// A route that was found.
pub struct Found {
    /// What it takes.
    pub need: Need,
    /// What answers.
    pub handler: Handler,
    /// What the pattern's `{…}` stands for.
    pub name: String,
}

struct Route {
    method: Method,
    need: Need,
    pattern: &'static str,
    handler: Handler,
}

macro_rules! routes {
    ($($method:ident $need:ident $pattern:literal => $handler:path;)*) => {
        &[$(Route {
            method: Method::$method,
            need: Need::$need,
            pattern: $pattern,
            handler: |context, request| Box::pin($handler(context, request)),
        }),*]
    };
}

const ROUTES: &[Route] = routes! {
    GET Read "/_ping" => system::ping;
    GET Read "/version" => system::version;
    GET Read "/info" => system::info;
    GET Read "/events" => event::stream;
    // The manager asks whatever host the name has: not for those who may only look.
    GET Write "/distribution/{*}/json" => distribution::inspect;

    GET Read "/swarm" => swarm::inspect;
    POST Write "/swarm/init" => swarm::init;
    POST Write "/swarm/join" => swarm::join;
    POST Write "/swarm/leave" => swarm::leave;
    POST Write "/swarm/update" => swarm::update;
    GET Secret "/swarm/unlockkey" => swarm::unlock_key;
    POST Write "/swarm/unlock" => swarm::unlock;

    GET Read "/nodes" => node::list;
    GET Read "/nodes/{}" => node::inspect;
    POST Write "/nodes/{}/update" => node::update;
    DELETE Write "/nodes/{}" => node::remove;

    GET Read "/services" => service::list;
    POST Write "/services/create" => service::create;
    GET Read "/services/{}" => service::inspect;
    POST Write "/services/{}/update" => service::update;
    DELETE Write "/services/{}" => service::remove;
    GET Read "/services/{}/logs" => logs::service;

    GET Read "/tasks" => task::list;
    GET Read "/tasks/{}" => task::inspect;
    GET Read "/tasks/{}/logs" => logs::task;

    GET Read "/secrets" => dependency::secret::list;
    POST Write "/secrets/create" => dependency::secret::create;
    GET Read "/secrets/{}" => dependency::secret::inspect;
    POST Write "/secrets/{}/update" => dependency::secret::update;
    DELETE Write "/secrets/{}" => dependency::secret::remove;

    GET Read "/configs" => dependency::config::list;
    POST Write "/configs/create" => dependency::config::create;
    GET Read "/configs/{}" => dependency::config::inspect;
    POST Write "/configs/{}/update" => dependency::config::update;
    DELETE Write "/configs/{}" => dependency::config::remove;

    GET Read "/networks" => networks::list;
    POST Write "/networks/create" => networks::create;
    POST Write "/networks/prune" => networks::prune;
    GET Read "/networks/{}" => networks::inspect;
    DELETE Write "/networks/{}" => networks::remove;

    GET Read "/racimo/access" => access::list;
    POST Write "/racimo/access" => access::create;
    DELETE Write "/racimo/access/{}" => access::remove;
    GET Secret "/racimo/audit" => access::audit;
    GET Secret "/racimo/backup" => backup::make;

    // What there is none of. Clients poll the lists and look everywhere for a name.
    GET Read "/containers/json" => system::none;
    GET Read "/containers/{}/json" => system::no_container;
    GET Read "/images/json" => system::none;
    GET Read "/images/{*}/json" => system::no_image;
    GET Read "/volumes" => system::no_volumes;
    GET Read "/volumes/{}" => system::no_volume;
    GET Read "/plugins" => system::none;
    GET Read "/plugins/{*}/json" => system::no_plugin;
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

/// The route of a path.
///
/// # Errors
/// 400 for a version we don't speak, 404 for an unknown path, 501 for a part of Docker's API that is not here.
pub fn find(method: &Method, path: &str) -> Result<Found, ApiError> {
    let path = without_version(path)?;
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let routes = ROUTES.iter().filter(|route| route.method == *method);
    if let Some((route, name)) = routes.filter_map(|r| matches(r.pattern, &segments).map(|name| (r, name))).next() {
        return Ok(Found { need: route.need, handler: route.handler, name });
    }
    match NOT_SUPPORTED.iter().find(|(first, _)| segments.first() == Some(first)) {
        Some((_, why)) => Err(ApiError::not_supported(*why)),
        None => Err(ApiError::new(hyper::StatusCode::NOT_FOUND, "page not found")),
    }
}

/// What is answered while the manager waits for its unlock key. (`init` and `join` say that it is in a cluster.)
const WHILE_LOCKED: &[&str] =
    &["/_ping", "/version", "/info", "/swarm/unlock", "/swarm/leave", "/swarm/init", "/swarm/join"];

/// Whether a path is answered while the manager waits for its unlock key.
pub fn works_locked(path: &str) -> bool {
    without_version(path).is_ok_and(|path| WHILE_LOCKED.contains(&path))
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
        let got = find(&method, path).map(|found| found.name).map_err(|error| error.status.as_u16());
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

    /// What only changes things must never be open to those who may only look.
    #[test]
    fn everything_but_looking_is_a_write() {
        for route in ROUTES {
            assert!(route.method == Method::GET || route.need != Need::Read, "{} {}", route.method, route.pattern);
        }
        let need = |path| find(&Method::GET, path).map(|found| found.need).ok();
        assert_eq!(need("/swarm/unlockkey"), Some(Need::Secret));
        assert_eq!(need("/racimo/backup"), Some(Need::Secret));
        assert_eq!(need("/distribution/x/json"), Some(Need::Write));
        assert_eq!(need("/services"), Some(Need::Read));
    }

    #[test]
    fn little_works_while_it_is_locked() {
        for path in ["/_ping", "/v1.47/info", "/v1.24/swarm/unlock", "/swarm/leave"] {
            assert!(works_locked(path), "{path}");
        }
        for route in ROUTES {
            let path = route.pattern.replace("{*}", "x").replace("{}", "x");
            assert_eq!(works_locked(&path), WHILE_LOCKED.contains(&route.pattern), "{path}");
        }
        for path in ["/swarm", "/swarm/unlockkey", "/v1.99/info", "/v1.47/swarm/unlock/x", "", "/v1.47"] {
            assert!(!works_locked(path), "{path}");
        }
        assert!(WHILE_LOCKED.iter().all(|path| ROUTES.iter().any(|route| route.pattern == *path)));
    }

    #[track_caller]
    fn check_version(path: &str, want: &str) {
        assert_eq!(find(&Method::GET, path).map(|found| found.name).expect_err(path).message, want);
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
