//! Which logs there are, and removing some. On another thread: a card may take its time.

use std::fs;
use std::io;
use std::path::PathBuf;

use racimo_common::id::TaskId;

use super::{dir, root};

/// The tasks that have a log; `data`: the agent's directory.
pub async fn find(data: PathBuf) -> Vec<TaskId> {
    smol::unblock(move || {
        let Ok(entries) = fs::read_dir(root(&data)) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    })
    .await
}

/// Removes logs.
pub async fn remove(data: PathBuf, tasks: Vec<TaskId>) {
    smol::unblock(move || {
        for task in tasks {
            match fs::remove_dir_all(dir(&data, task)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    log::warn!("task {task}: remove its log: {error}");
                }
                Ok(()) | Err(_) => log::debug!("task {task}: its log was removed"),
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use racimo_common::id::RandomId;
    use smol::block_on;

    use super::*;

    #[test]
    fn only_logs_of_tasks_are_found_and_removed() {
        let data = tempfile::tempdir().expect("a directory");
        let path = data.path().to_owned();
        assert_eq!(block_on(find(path.clone())), []);
        let (one, two) = (TaskId::from_bits(1), TaskId::from_bits(2));
        for task in [one, two] {
            fs::create_dir_all(dir(&path, task)).expect("a directory");
            fs::write(dir(&path, task).join("00000001.log"), "x").expect("a file");
        }
        fs::create_dir_all(root(&path).join("lost+found")).expect("a directory");
        let mut found = block_on(find(path.clone()));
        found.sort_unstable();
        assert_eq!(found, [one, two]);
        block_on(remove(path.clone(), vec![one, TaskId::from_bits(3)]));
        assert_eq!(block_on(find(path)), [two]);
    }
}
