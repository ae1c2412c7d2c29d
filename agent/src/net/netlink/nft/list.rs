//! What there is, by name: for comparing with what shall be.

use super::{GET_CHAIN, GET_ELEMENTS, GET_TABLE, HEADER, Key, NFTABLES, Nft, SetKind};
use crate::net::netlink::Error;
use crate::net::netlink::message::{Attribute, Batch, DUMP, Tolerate};

impl Nft {
    /// The names of all IPv4 tables.
    pub fn tables(&mut self) -> Result<Vec<Box<str>>, Error> {
        let request = request(GET_TABLE, |_| {});
        self.socket.list(&request, |message| message.attributes(4).get(1).map(|name| name.text().into()))
    }

    /// The names of a table's chains; none of them: also if there is no such table.
    pub fn chains(&mut self, table: &str) -> Result<Vec<Box<str>>, Error> {
        self.used_chains(table, |name, _| Some(name.into()))
    }

    /// What `read` makes of each of a table's chains: its name, and by how many rules, its own and those that lead to
    /// it, and elements of maps it is used.
    pub fn used_chains<T>(
        &mut self,
        table: &str,
        mut read: impl FnMut(&str, u32) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let request = request(GET_CHAIN, |_| {});
        self.socket.list(&request, |message| {
            let attributes = message.attributes(4);
            attributes.get(1).filter(|found| found.text() == table)?;
            let uses = attributes.get(6).and_then(|uses| uses.be32()).unwrap_or(u32::MAX);
            read(attributes.get(3)?.text(), uses)
        })
    }

    /// The keys in a set; none: also if there is no such set.
    pub fn elements(&mut self, table: &str, set: &str, kind: SetKind) -> Result<Vec<Key>, Error> {
        let request = request(GET_ELEMENTS, |message| {
            message.text(1, table).text(2, set);
        });
        let found = self.socket.list(&request, |message| {
            let list = message.attributes(4).get(3).map(|list| list.nested());
            let key = move |item: Attribute<'_>| Key::read(kind, item.nested().get(1)?.nested().get(1)?.value);
            list.into_iter().flatten().filter_map(key).collect::<Vec<_>>()
        });
        match found {
            Err(Error::Refused { errno: libc::ENOENT, .. }) => Ok(Vec::new()),
            found => found,
        }
    }
}

fn request(kind: u16, fill: impl FnOnce(&mut Batch)) -> Batch {
    let mut batch = Batch::new();
    fill(batch.begin(NFTABLES << 8 | kind, DUMP, Tolerate::Nothing, &HEADER));
    batch
}
