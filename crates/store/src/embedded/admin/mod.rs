//! What serves operators: the data folder and its lock, backups, checks, migrations. Nothing here is on the path of a message.

pub(super) mod backup;
pub(super) mod check;
pub(super) mod copy;
pub(super) mod damage;
pub(super) mod folder;
pub(super) mod glance;
pub(super) mod migrate;
