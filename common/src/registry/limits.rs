//! Limits of the registry client. When one is reached the operation ends with
//! a [`RegistryError`](super::RegistryError); nothing is cut short silently.

use std::time::Duration;

/// Bytes of a manifest, index or image configuration. They are held in memory
/// whole, so that their digest can be checked before they are believed.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a token server's answer.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Bytes of an error body that is read for its message.
pub const ERROR_BYTES_MAX: usize = 8 * 1024;

/// Layers of one image; Docker's own bound.
pub const LAYERS_MAX: usize = 127;

/// Redirects followed for one request.
pub const REDIRECTS_MAX: usize = 5;

/// Addresses of one host that are tried.
pub const ADDRESSES_MAX: usize = 4;

/// Hosts whose scheme (TLS or not) is remembered; then the memory starts anew.
pub const SCHEMES_MAX: usize = 32;

/// hyper's read and write buffer per connection, and with it the size of a
/// response's head, in bytes. hyper's minimum: registries send 2 to 3 KB.
pub const CONNECTION_BUFFER_BYTES: usize = 8 * 1024;

/// Name look-up and TCP connection, each address.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// From the request to the end of the response's head.
pub const HEADERS_TIMEOUT: Duration = Duration::from_secs(30);

/// Silence in the middle of a body.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

const _: () = assert!(CONNECTION_BUFFER_BYTES >= 8 * 1024, "hyper's minimum");
const _: () = assert!(ERROR_BYTES_MAX < DOCUMENT_BYTES_MAX);
