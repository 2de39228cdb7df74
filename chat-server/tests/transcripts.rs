//! Runs every file of `transcripts/` over the model store, over it with two homes of each log, and over the embedded store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use madang_testkit::transcript::{Target, run};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../transcripts")
}

macro_rules! transcripts {
    ($($name:ident = $file:literal),* ; $($apart:ident = $apart_file:literal),* $(,)?) => {
        const FILES: &[&str] = &[$($file,)* $($apart_file),*];
        mod model {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::check($file, super::Target::Model).await;
            })*
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $apart() {
                super::check($apart_file, super::Target::Model).await;
            })*
        }
        mod two_homes {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::check($file, super::Target::TwoHomes).await;
            })*
        }
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::check($file, super::Target::Embedded).await;
            })*
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $apart() {
                super::check($apart_file, super::Target::Embedded).await;
            })*
        }
    };
}

transcripts! {
    handshake = "handshake.txt",
    tokens = "tokens.txt",
    refresh = "refresh.txt",
    accounts = "accounts.txt",
    direct = "direct.txt",
    group = "group.txt",
    retry = "retry.txt",
    push = "push.txt",
    push_settings = "push-settings.txt",
    push_open = "push-open.txt",
    push_devices = "push-devices.txt",
    read_unread = "read-unread.txt",
    channel_settings = "channel-settings.txt",
    delete_channel = "delete-channel.txt",
    edit_delete = "edit-delete.txt",
    reactions = "reactions.txt",
    mentions = "mentions.txt",
    moderation = "moderation.txt",
    open_moderation = "open-moderation.txt",
    typing = "typing.txt",
    receipts = "receipts.txt",
    left = "left.txt",
    resume = "resume.txt",
    cursors = "cursors.txt",
    snapshot = "snapshot.txt",
    resync = "resync.txt",
    limits = "limits.txt",
    frame_rate = "frame-rate.txt",
    errors = "errors.txt",
    drain = "drain.txt",
    open = "open.txt",
    contacts = "contacts.txt",
    invitations = "invitations.txt",
    profiles = "profiles.txt";
    // Not with two homes: presence has none, and what it reads when two users become contacts depends on when their notes arrive.
    presence = "presence.txt",
}

async fn check(file: &str, target: Target) {
    let name = format!("{target:?}");
    if let Err(failure) = run(&folder().join(file), target).await {
        panic!("on the {name} store: {failure}");
    }
}

#[test]
fn every_file_has_its_tests() {
    let files = std::fs::read_dir(folder()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let found: BTreeSet<String> = names.filter(|name| name.ends_with(".txt")).collect();
    assert_eq!(found, FILES.iter().map(|&file| file.to_owned()).collect());
}
