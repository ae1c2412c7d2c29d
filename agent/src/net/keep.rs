//! What must outlive the agent but not the board: in files below `<run>/net`, so that a restarted agent knows what its
//! kernel does, and goes on.
//!
//! ```text
//! table        Net messages, each after its length: together they are the whole table
//! tasks/<id>   one task's place in the network; written before its container is made
//! ```

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use racimo_common::id::TaskId;
use racimo_common::limits::FRAME_TO_AGENT_MAX;
use racimo_common::wire::{Net, frame};

use super::plan::Attached;
use super::table::Table;

/// The files of one board.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
}

impl Files {
    pub(super) fn new(run: &Path) -> Self {
        Self { dir: run.join("net") }
    }

    fn table(&self) -> PathBuf {
        self.dir.join("table")
    }

    fn task(&self, task: TaskId) -> PathBuf {
        self.dir.join("tasks").join(task.to_string())
    }

    /// Writes the table, whole or not at all. One item at a time is held in memory twice.
    pub(super) fn write_table(&self, table: &Table) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let new = self.dir.join(".table");
        let mut file = BufWriter::new(File::create(&new)?);
        let mut put = |net: &Net| -> io::Result<()> {
            let bytes = frame::encode(net, FRAME_TO_AGENT_MAX).map_err(io::Error::other)?;
            file.write_all(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes())?;
            file.write_all(&bytes)
        };
        put(&table.board())?;
        for service in table.services.values() {
            put(&Net { services: vec![service.clone()], ..Net::default() })?;
        }
        file.flush()?;
        drop(file);
        fs::rename(new, self.table())
    }

    /// The table as it was written; none: it was not.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read_table(&self) -> io::Result<Option<Table>> {
        let mut file = match File::open(self.table()) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut table = Table::default();
        loop {
            let mut length = [0; 4];
            match file.read_exact(&mut length) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Some(table)),
                Err(error) => return Err(error),
            }
            let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            if length > FRAME_TO_AGENT_MAX {
                return Err(io::Error::other("an item that is too long"));
            }
            let mut bytes = vec![0; length];
            file.read_exact(&mut bytes)?;
            table.take(frame::decode(&bytes).map_err(io::Error::other)?);
        }
    }

    pub(super) fn write_task(&self, task: TaskId, attached: &Attached) -> io::Result<()> {
        fs::create_dir_all(self.dir.join("tasks"))?;
        let bytes = frame::encode(attached, FRAME_TO_AGENT_MAX).map_err(io::Error::other)?;
        fs::write(self.task(task), bytes)
    }

    pub(super) fn remove_task(&self, task: TaskId) -> io::Result<()> {
        match fs::remove_file(self.task(task)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The tasks that were on the network; those whose file is damaged are left out.
    pub(super) fn read_tasks(&self) -> Vec<(TaskId, Attached)> {
        let Ok(entries) = fs::read_dir(self.dir.join("tasks")) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<TaskId>().ok());
        let read = |task: TaskId| Some((task, frame::decode(&fs::read(self.task(task)).ok()?).ok()?));
        names.filter_map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use racimo_common::id::RandomId;
    use racimo_common::wire::NetService;

    use super::*;
    use crate::net::testing::own;

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path());
        assert!(files.read_table().unwrap().is_none() && files.read_tasks().is_empty());
        let service = |number: u128| NetService {
            id: RandomId::from_bits(number),
            name: format!("service{number}"),
            ports: Vec::new(),
            keep_source: false,
            networks: Vec::new(),
            endpoints: Vec::new(),
        };
        let mut table = Table::default();
        table.take(Net { own: Some(own(1)), services: vec![service(1), service(2)], ..Net::default() });
        files.write_table(&table).unwrap();
        let read = files.read_table().unwrap().unwrap();
        assert_eq!((&read.own, &read.services), (&table.own, &table.services));

        let attached = Attached { hostname: "berry".into(), ..Attached::default() };
        let task = TaskId::from_bits(7);
        files.write_task(task, &attached).unwrap();
        fs::write(dir.path().join("net/tasks/x"), "").unwrap();
        fs::write(files.task(TaskId::from_bits(8)), "damaged").unwrap();
        assert_eq!(files.read_tasks(), [(task, attached)]);
        files.remove_task(task).unwrap();
        files.remove_task(task).unwrap();
        assert!(files.read_tasks().is_empty());

        // A crash while it is written leaves the old one; a damaged one is an error, not half a table.
        let bytes = fs::read(files.table()).unwrap();
        fs::write(files.table(), &bytes[..bytes.len() - 3]).unwrap();
        assert!(files.read_table().is_err());
        fs::write(files.table(), [0xff; 64]).unwrap();
        assert!(files.read_table().is_err());
    }
}
