//! `/racimo/access`: who may use the API from afar. Racimo's own; Docker has nothing like it.

use std::time::Duration;

use futures_rustls::rustls::pki_types::CertificateSigningRequestDer;
use futures_rustls::rustls::pki_types::pem::PemObject;
use hyper::StatusCode;
use racimo_common::tls;
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use super::answer::Answer;
use super::error::ApiError;
use super::fields::Fields;
use super::request::Request;
use super::{Context, convert, swarm};
use crate::ca::{self, CaError, CertRequest, NODE_VALIDITY_MIN, Roots, host_of};
use crate::store::{Access, AccessRole, Change, Cluster};

/// How long an access is good for if nobody says otherwise.
const VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Bytes of a name: of a certificate's CN.
const NAME_BYTES_MAX: usize = 64;
/// Lines of the audit file that are shown if nobody says otherwise.
const LINES: usize = 100;

/// `GET /racimo/access`.
pub(super) async fn list(context: &Context, _: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let all: Vec<Value> = view.state.accesses().map(|access| shown(access)).collect();
    Ok(Answer::ok(&all.into()))
}

fn shown(access: &Access) -> Value {
    json!({
        "Name": access.name,
        "Role": access.role.name(),
        "CreatedAt": convert::time(access.created),
        "ExpiresAt": convert::time(access.expires),
    })
}

/// `POST /racimo/access`: signs the request of somebody who made a key, and lets them in.
pub(super) async fn create(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let cluster = view.state.cluster().ok_or_else(|| ApiError::unavailable(swarm::NOT_A_MANAGER))?;
    let body = request.json()?;
    let mut fields = Fields::of("", &body)?;
    let name = name(&fields.text("Name")?.unwrap_or_default())?;
    let role = match fields.text("Role")?.as_deref().unwrap_or_default() {
        "" | "admin" => AccessRole::Admin,
        "read-only" => AccessRole::ReadOnly,
        other => return Err(ApiError::bad_request(format!("Role: expected admin or read-only, not {other:?}"))),
    };
    let validity = fields.count("Validity")?.filter(|nanos| *nanos > 0).map_or(VALIDITY, Duration::from_nanos);
    let csr = fields.text("CSR")?.unwrap_or_default();
    fields.done()?;
    if validity < NODE_VALIDITY_MIN {
        return Err(CaError::Validity(validity).into());
    }
    let csr = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes())
        .map_err(|_| ApiError::bad_request("CSR: expected a certificate request, PEM"))?;
    let csr = CertRequest::parse(&csr)?;
    let issuer = ca::issuer(&context.vault, cluster)?;
    let now = ca::client_time(cluster, issuer.ends(), context.now());
    let signed = issuer.issue_access(&csr, &name, role, now, validity, &SystemRandom::new())?;
    let issuer = Some(issuer.root_digest());
    let access = Access { name, role, key_digest: csr.key_digest(), created: now, expires: signed.expires, issuer };
    let mut answer = shown(&access);
    answer["Certificate"] = tls::certificate_to_pem(&signed.der).into();
    let roots = Roots::of(cluster).map_err(|error| ApiError::unavailable(error.to_string()))?;
    answer["CA"] = roots.trusted().iter().map(tls::certificate_to_pem).collect::<String>().into();
    answer["Hosts"] = hosts(context, cluster).into();
    context.commit(Change::AccessCreate(Box::new(access))).await?;
    context.changes.tell();
    Ok(Answer::created(&answer))
}

/// Letters, digits, `.`, `_` and `-`, the first one a letter or digit: clients make folders of it.
fn name(text: &str) -> Result<String, ApiError> {
    let is_fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if begins && text.len() <= NAME_BYTES_MAX && text.bytes().all(is_fine) {
        return Ok(text.to_owned());
    }
    let expected = format!(
        "Name: expected a letter or digit, then letters, digits, '.', '_' and '-', {NAME_BYTES_MAX} at most, not {text:?}"
    );
    Err(ApiError::bad_request(expected))
}

/// What clients may dial.
fn hosts(context: &Context, cluster: &Cluster) -> Vec<String> {
    let advertised = cluster.managers.first().map(|text| host_of(text)).unwrap_or_default();
    let host = |address: &std::net::SocketAddr| {
        let ip = if address.ip().is_unspecified() { advertised.to_owned() } else { address.ip().to_string() };
        let ip = if ip.contains(':') { format!("[{ip}]") } else { ip };
        format!("tcp://{ip}:{}", address.port())
    };
    context.remote.iter().map(host).collect()
}

/// `DELETE /racimo/access/{name}`: from now on it opens nothing.
pub(super) async fn remove(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    context.cluster_view()?;
    context.commit(Change::AccessRemove { name: request.name.clone() }).await?;
    context.changes.tell();
    Ok(Answer::no_content())
}

/// `GET /racimo/audit`: the last lines of the audit file.
pub(super) async fn audit(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let lines = match request.param("lines").unwrap_or_default() {
        "" => LINES,
        text => text.parse().map_err(|_| ApiError::bad_request(format!("lines: expected a number, not {text:?}")))?,
    };
    let text = context.audit.last(lines).await;
    let text = text.map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the audit file cannot be read: {error}"))
    })?;
    Ok(Answer::plain(text))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::api::testing::Lab;
    use crate::ca::Holder;

    fn csr() -> String {
        let key = KeyPair::generate().expect("a key");
        CertificateParams::default().serialize_request(&key).expect("a request").pem().expect("PEM")
    }

    #[track_caller]
    fn refused(lab: &Lab, body: Value, status: u16, want: &str) {
        let (got, answer) = lab.post("/racimo/access", &body.to_string());
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(got == status && message.contains(want), "{got} {answer} instead of {status} {want}");
    }

    #[test]
    fn accesses_are_made_listed_and_revoked() {
        let lab = Lab::certified();
        let (status, made) = lab.post("/racimo/access", &json!({ "Name": "ann", "CSR": csr() }).to_string());
        assert_eq!((status, made["Role"].as_str()), (201, Some("admin")), "{made}");
        let der = tls::certificate_from_pem(made["Certificate"].as_str().expect("PEM")).expect("a certificate");
        assert_eq!(Holder::of(&der).map(|holder| holder.name), Ok("ann".to_owned()));
        assert!(made["CA"].as_str().is_some_and(|pem| pem.contains("BEGIN CERTIFICATE")));
        refused(&lab, json!({ "Name": "ann", "CSR": csr() }), 409, "access ann already exists");
        refused(&lab, json!({ "Name": "../x", "CSR": csr() }), 400, "Name: expected");
        refused(&lab, json!({ "Name": ".x", "CSR": csr() }), 400, "Name: expected");
        refused(&lab, json!({ "Name": "x".repeat(65), "CSR": csr() }), 400, "Name: expected");
        refused(&lab, json!({ "Name": "", "CSR": csr() }), 400, "Name: expected");
        refused(&lab, json!({ "Name": "x", "Role": "root", "CSR": csr() }), 400, "expected admin or read-only");
        refused(&lab, json!({ "Name": "x", "CSR": "rubbish" }), 400, "expected a certificate request");
        refused(&lab, json!({ "Name": "x", "CSR": csr(), "Validity": 1_000_000_000 }), 400, "at least 1h");
        refused(&lab, json!({ "Name": "x", "CSR": csr(), "Groups": ["a"] }), 400, "Groups is not supported");
        let hours = json!({ "Name": "bob", "Role": "read-only", "CSR": csr(), "Validity": 7_200_000_000_000_u64 });
        assert_eq!(lab.post("/racimo/access", &hours.to_string()).0, 201);
        let (_, list) = lab.get("/racimo/access");
        let names: Vec<&str> = list.as_array().expect("a list").iter().filter_map(|a| a["Name"].as_str()).collect();
        assert_eq!((names, list[1]["Role"].as_str()), (vec!["ann", "bob"], Some("read-only")));
        let time = |value: &Value| {
            racimo_common::time::Wall::from_nanos(
                time::OffsetDateTime::parse(
                    value.as_str().expect("a time"),
                    &time::format_description::well_known::Rfc3339,
                )
                .expect("a time")
                .unix_timestamp()
                    * 1_000_000_000,
            )
        };
        let life = time(&list[1]["ExpiresAt"]).since(time(&list[1]["CreatedAt"]));
        assert!((7190..=7210).contains(&life.as_secs()), "{life:?}");
        assert_eq!(lab.ask("DELETE", "/racimo/access/ann", "").0, 204);
        assert_eq!(lab.ask("DELETE", "/racimo/access/ann", "").0, 404);
        assert_eq!(lab.get("/racimo/audit?lines=x").0, 400);
        assert_eq!(lab.get("/racimo/audit").0, 200);
    }
}
