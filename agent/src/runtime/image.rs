//! What running an image needs to know about it.

pub use racimo_common::registry::media::RunConfig;

/// An image that is unpacked on this board.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Its name in containerd.
    pub name: String,
    /// Chain id of its top layer: the snapshot that a container's root file system stands on.
    pub chain: String,
    /// How it wants to be run.
    pub run: RunConfig,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_and_oci_configurations_are_read() {
        let config: RunConfig = serde_json::from_str(
            r#"{"Hostname":"","User":"","ExposedPorts":{"80/tcp":{}},"Env":["A=b"],"Entrypoint":null,
                "Cmd":["sh","-c"],"WorkingDir":"/srv","StopSignal":"SIGQUIT","Labels":null}"#,
        )
        .unwrap();
        assert_eq!(config.entrypoint, None);
        assert_eq!(config.cmd.as_deref(), Some(&["sh".to_owned(), "-c".to_owned()][..]));
        assert_eq!(config.working_dir.as_deref(), Some("/srv"));
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
    }
}
