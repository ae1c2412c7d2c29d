//! Image records and their labels, for whoever decides which images stay.

use std::collections::HashMap;

use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::{Image, ListImagesRequest, UpdateImageRequest};
use containerd_client::types::Descriptor;
use prost_types::FieldMask;
use tonic::Code;

use super::error::PullError;
use crate::images::{self, Record, TURN, Unused};
use crate::limits::CTRD_CALL_MAX;
use crate::runtime::ctrd::{Ctrd, Kind, request, unless, within};

/// Every image record, ours and others.
///
/// # Errors
/// containerd's.
pub async fn records(ctrd: &Ctrd) -> Result<Vec<Record>, PullError> {
    list(ctrd, Vec::new()).await
}

async fn list(ctrd: &Ctrd, filters: Vec<String>) -> Result<Vec<Record>, PullError> {
    let mut client = ImagesClient::new(ctrd.clone());
    let call = client.list(request(ListImagesRequest { filters }, None));
    let images = within(CTRD_CALL_MAX, call).await.map_err(PullError::call("list images"))?.into_inner().images;
    let record = |image: Image| {
        let digest = image.target.map(|target| target.digest).unwrap_or_default();
        Record { name: image.name, digest, labels: image.labels }
    };
    Ok(images.into_iter().map(record).collect())
}

/// Notes that `service` uses the image `name` now, unless that is known.
///
/// # Errors
/// containerd's.
pub async fn note_use(ctrd: &Ctrd, name: &str, service: &str) -> Result<(), PullError> {
    let filters = vec![format!("name=={name:?}"), format!("labels.\"{TURN}{service}\"")];
    let records = list(ctrd, filters).await?;
    match images::used(&records, name, service) {
        Some(labels) => label(ctrd, name.to_owned(), labels).await,
        None => Ok(()),
    }
}

/// Gives a record these labels instead of those that it has. One that is gone needs none.
///
/// # Errors
/// containerd's.
pub async fn label(ctrd: &Ctrd, name: String, labels: HashMap<String, String>) -> Result<(), PullError> {
    // The mask leaves the target as it is; but containerd 1.7 panics on an image without one.
    let target = Some(Descriptor::default());
    let image = Image { name, labels, target, ..Default::default() };
    let update_mask = Some(FieldMask { paths: vec!["labels".into()] });
    let update = UpdateImageRequest { image: Some(image), update_mask, ..Default::default() };
    let mut client = ImagesClient::new(ctrd.clone());
    let updated = within(CTRD_CALL_MAX, client.update(request(update, None))).await;
    unless(Code::NotFound, updated).map(drop).map_err(PullError::call("label an image"))
}

/// Removes an image, and waits until its space is free.
///
/// # Errors
/// containerd's.
pub async fn remove(ctrd: &Ctrd, image: Unused) -> Result<(), PullError> {
    let mut left = image.names.len();
    for name in image.names {
        left -= 1;
        let deleted = ctrd.delete(Kind::Image, name, left == 0).await;
        unless(Code::NotFound, deleted).map_err(PullError::call("remove an image"))?;
    }
    Ok(())
}
