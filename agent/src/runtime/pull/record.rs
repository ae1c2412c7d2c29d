//! Image records: names in containerd that point at an index or manifest.

use std::collections::HashMap;

use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::{
    CreateImageRequest, GetImageRequest, Image, ListImagesRequest, UpdateImageRequest,
};
use containerd_client::types::Descriptor;
use prost_types::FieldMask;
use racimo_common::registry::{Digest, Reference};
use tonic::Code;

use super::error::PullError;
use super::lease::Lease;
use super::parts::Parts;
use crate::images::PULLED;
use crate::limits::CTRD_CALL_MAX;
use crate::runtime::ctrd::{Ctrd, request, within};

/// What a name points at.
pub(super) struct Record {
    pub(super) name: String,
    pub(super) digest: Digest,
    pub(super) media_type: String,
}

/// The record of `image`: any with its digest if it has one, otherwise that of its name.
pub(super) async fn find(ctrd: &Ctrd, image: &Reference) -> Result<Option<Record>, PullError> {
    let mut client = ImagesClient::new(ctrd.clone());
    let failed = PullError::call("look for an image");
    let found = match image.digest() {
        Some(digest) => {
            let list = ListImagesRequest { filters: vec![format!("target.digest==\"{digest}\"")] };
            let answer = within(CTRD_CALL_MAX, client.list(request(list, None))).await.map_err(failed)?;
            let images = answer.into_inner().images;
            // The name that was asked for, if there are several.
            let wanted = by_digest(image, digest);
            let at = images.iter().position(|found| found.name == wanted).unwrap_or_default();
            images.into_iter().nth(at)
        }
        None => {
            let get = GetImageRequest { name: image.to_string() };
            match within(CTRD_CALL_MAX, client.get(request(get, None))).await {
                Ok(answer) => answer.into_inner().image,
                Err(status) if status.code() == Code::NotFound => None,
                Err(status) => return Err(failed(status)),
            }
        }
    };
    Ok(found.and_then(|image| {
        let target = image.target?;
        // A record with another kind of digest is nobody's that we know.
        let digest = target.digest.parse().ok()?;
        Some(Record { name: image.name, digest, media_type: target.media_type })
    }))
}

/// Points `image`'s names at what has been pulled. Returns the name to use.
pub(super) async fn put(ctrd: &Ctrd, lease: &Lease, image: &Reference, parts: &Parts) -> Result<String, PullError> {
    let target = parts.target();
    let target = Descriptor {
        media_type: target.media_type.clone(),
        digest: target.digest.to_string(),
        size: target.size as i64,
        ..Default::default()
    };
    let mut names = names(image);
    for name in &names {
        put_one(ctrd, lease, name, &target).await?;
    }
    Ok(names.swap_remove(0))
}

async fn put_one(ctrd: &Ctrd, lease: &Lease, name: &str, target: &Descriptor) -> Result<(), PullError> {
    let image = Image {
        name: name.into(),
        labels: HashMap::from([(PULLED.into(), "true".into())]),
        target: Some(target.clone()),
        ..Default::default()
    };
    let mut client = ImagesClient::new(ctrd.clone());
    let create = CreateImageRequest { image: Some(image.clone()), ..Default::default() };
    let failed = PullError::call("name an image");
    match within(CTRD_CALL_MAX, client.create(request(create, Some(lease.id())))).await {
        Ok(_) => return Ok(()),
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => return Err(failed(status)),
    }
    let update_mask = Some(FieldMask { paths: vec!["target".into()] });
    let update = UpdateImageRequest { image: Some(image), update_mask, ..Default::default() };
    let updated = within(CTRD_CALL_MAX, client.update(request(update, Some(lease.id())))).await;
    updated.map(drop).map_err(failed)
}

/// The names to write, the one to use first.
fn names(image: &Reference) -> Vec<String> {
    let by_tag = image.tag().map(|tag| format!("{}:{tag}", image.name()));
    let by_digest = image.digest().map(|digest| by_digest(image, digest));
    by_digest.into_iter().chain(by_tag).collect()
}

fn by_digest(image: &Reference, digest: Digest) -> String {
    format!("{}@{digest}", image.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(image: &str, expected: &[&str]) {
        let digest = Digest::of(b"").to_string();
        let image: Reference = image.replace("@D", &format!("@{digest}")).parse().unwrap();
        let expected: Vec<_> = expected.iter().map(|name| name.replace("@D", &format!("@{digest}"))).collect();
        assert_eq!(names(&image), expected);
    }

    #[test]
    fn names_are_those_of_ctr() {
        check("nginx", &["docker.io/library/nginx:latest"]);
        check("a.b/c:1", &["a.b/c:1"]);
        check("a.b/c@D", &["a.b/c@D"]);
        check("nginx:1@D", &["docker.io/library/nginx@D", "docker.io/library/nginx:1"]);
    }
}
