//! What a reference stands for: digest and platforms.

use super::auth::Credentials;
use super::client::Registry;
use super::digest::Digest;
use super::error::RegistryError;
use super::media::{Document, ImageConfig};
use super::platform::Platform;
use super::reference::Reference;

/// An image as its registry knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Of the index, or of the only manifest.
    pub digest: Digest,
    /// Of the same.
    pub media_type: String,
    /// Of the same, in bytes.
    pub size: u64,
    /// What it can run on, in the image's order; attestations left out.
    pub platforms: Vec<Platform>,
}

impl Registry {
    /// Asks the registry what `image` stands for.
    ///
    /// # Errors
    /// Any [`RegistryError`] but `NoPlatform`.
    pub async fn resolve(
        &self,
        image: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Resolved, RegistryError> {
        let mut repository = self.repository(image, credentials);
        let top = repository.top().await?;
        let (document, media_type) = Document::parse(&top.bytes, &top.content_type)?;
        let platforms = match document {
            Document::Index(index) => index.platforms(),
            Document::Manifest(manifest) => {
                let config = repository.document(&manifest.config).await?;
                let platform = ImageConfig::parse(&config)?.platform();
                if platform.architecture.is_empty() { Vec::new() } else { vec![platform.normalised()] }
            }
        };
        Ok(Resolved { digest: top.digest, media_type, size: top.bytes.len() as u64, platforms })
    }
}
