//! A disk that knows what was synced. SQLite's own VFS does the work; on the way each write is noted, and moves to
//! the durable image of its file with the next sync. After a loss of power a file is its image, with or without any
//! of the writes that were never synced.
#![expect(
    unsafe_code,
    reason = "a VFS is a table of C functions; each block says why it may do what it does"
)]

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rusqlite::ffi::{
    SQLITE_FULL, SQLITE_IOERR_FSYNC, SQLITE_IOERR_WRITE, SQLITE_OK, sqlite3_file, sqlite3_filename,
    sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

const NAME: &CStr = c"power-loss";

static DISK: Mutex<Disk> =
    Mutex::new(Disk { files: BTreeMap::new(), open: BTreeMap::new(), faults: BTreeMap::new() });
static REGISTERED: Once = Once::new();
static SLOW_SYNCS: AtomicU64 = AtomicU64::new(0);

struct Disk {
    files: BTreeMap<PathBuf, File>,
    /// By address of SQLite's object.
    open: BTreeMap<usize, Open>,
    /// By file, or by the folder it is in.
    faults: BTreeMap<PathBuf, Fault>,
}

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Files cannot grow; existing bytes can be overwritten.
    Full,
    /// All writes are refused.
    ReadOnly,
    /// Syncs fail, and the data behind them may be lost.
    FailingSync,
    /// Each sync takes this time in milliseconds.
    SlowSync(u64),
}

struct Open {
    path: PathBuf,
    real: &'static sqlite3_io_methods,
}

#[derive(Default)]
struct File {
    image: Vec<u8>,
    unsynced: Vec<Write>,
}

#[derive(Clone)]
enum Write {
    At(usize, Vec<u8>),
    Truncate(usize),
}

impl Write {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::At(offset, bytes) => {
                let end = offset + bytes.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[*offset..end].copy_from_slice(bytes);
            }
            Self::Truncate(length) => image.truncate(*length),
        }
    }
}

/// The name under which SQLite knows this disk.
pub(super) fn vfs() -> &'static CStr {
    REGISTERED.call_once(register);
    NAME
}

/// What the files in `folder` are after a loss of power at this instant. `survives` says of each write that was not
/// synced whether it reached the disk all the same.
pub(super) fn after_power_loss(folder: &Path, mut survives: impl FnMut() -> bool) -> Vec<(PathBuf, Vec<u8>)> {
    let disk = DISK.lock();
    let in_folder = disk.files.iter().filter(|(path, _)| path.starts_with(folder));
    in_folder
        .map(|(path, file)| {
            let mut image = file.image.clone();
            file.unsynced.iter().filter(|_| survives()).for_each(|write| write.apply(&mut image));
            (path.clone(), image)
        })
        .collect()
}

/// From now on `fault` is what is wrong with a file, or with all files in a folder.
pub(super) fn set_fault(path: &Path, fault: Option<Fault>) {
    let mut disk = DISK.lock();
    match fault {
        Some(fault) => drop(disk.faults.insert(path.to_owned(), fault)),
        None => drop(disk.faults.remove(path)),
    }
}

/// Syncs that were slow, or are just now.
pub(super) fn slow_syncs() -> u64 {
    SLOW_SYNCS.load(Ordering::SeqCst)
}

fn fault_of(file: *mut sqlite3_file) -> Option<Fault> {
    let disk = DISK.lock();
    let path = &disk.open.get(&(file as usize))?.path;
    path.ancestors().find_map(|path| disk.faults.get(path)).copied()
}

/// Whether a write up to `end` is refused, and as what.
fn refused(file: *mut sqlite3_file, end: u64) -> Option<c_int> {
    match fault_of(file)? {
        Fault::ReadOnly => Some(SQLITE_IOERR_WRITE),
        Fault::Full => {
            let disk = DISK.lock();
            let path = &disk.open.get(&(file as usize))?.path;
            (path.metadata().map_or(0, |file| file.len()) < end).then_some(SQLITE_FULL)
        }
        Fault::FailingSync | Fault::SlowSync(_) => None,
    }
}

fn register() {
    // SAFETY: the default VFS lives as long as the process; its table may be copied. The copy is never freed, as
    // SQLite wants of a registered VFS. The functions that stay the default's read nothing of the table but
    // `pAppData` and `mxPathname`, which are copied as well.
    unsafe {
        let mut vfs = *sqlite3_vfs_find(std::ptr::null());
        vfs.pNext = std::ptr::null_mut();
        vfs.zName = NAME.as_ptr();
        vfs.xOpen = Some(open);
        vfs.xDelete = Some(delete);
        assert_eq!(sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0), SQLITE_OK);
    }
}

/// # Safety
/// SQLite calls it with what the documentation of `xOpen` promises.
unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the arguments are SQLite's, passed on; `file` has the size that the default VFS asked for, since the
    // size was copied from it.
    let status = unsafe { sqlite3_vfs_find(std::ptr::null()).as_ref() }
        .and_then(|real| real.xOpen)
        .map_or(1, |open| unsafe { open(vfs, name, file, flags, out) });
    if status != SQLITE_OK || name.is_null() {
        return status;
    }
    // SAFETY: after a successful open the table of functions is set and static; the name ends with a zero byte.
    let (real, path) = unsafe { (&*(*file).pMethods, path_of(name)) };
    let mut methods = *real;
    methods.xWrite = Some(write);
    methods.xTruncate = Some(truncate);
    methods.xSync = Some(sync);
    methods.xClose = Some(close);
    let mut disk = DISK.lock();
    disk.files
        .entry(path.clone())
        .or_insert_with(|| File { image: std::fs::read(&path).unwrap_or_default(), ..File::default() });
    disk.open.insert(file as usize, Open { path, real });
    // SAFETY: SQLite owns `file` and lets its VFS set the table. Leaked: a test opens few files.
    unsafe { (*file).pMethods = Box::leak(Box::new(methods)) };
    status
}

/// # Safety
/// `name` ends with a zero byte.
unsafe fn path_of(name: *const c_char) -> PathBuf {
    // SAFETY: the caller's promise.
    PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()))
}

/// # Safety
/// SQLite calls it with what the documentation of `xDelete` promises.
unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: the name is SQLite's, and so are the arguments passed on.
    let (path, real) = unsafe { (path_of(name), &*sqlite3_vfs_find(std::ptr::null())) };
    DISK.lock().files.remove(&path);
    // SAFETY: as above.
    real.xDelete.map_or(1, |delete| unsafe { delete(vfs, name, sync) })
}

/// The real functions of an open file, after `note` has seen its state.
fn noted(file: *mut sqlite3_file, note: impl FnOnce(&mut File)) -> Option<&'static sqlite3_io_methods> {
    let mut disk = DISK.lock();
    let Open { path, real } = disk.open.get(&(file as usize))?;
    let (path, real) = (path.clone(), *real);
    note(disk.files.entry(path).or_default());
    Some(real)
}

/// # Safety
/// SQLite calls it with what the documentation of `xWrite` promises.
unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, count: c_int, offset: i64) -> c_int {
    if let Some(refusal) = refused(file, offset as u64 + count as u64) {
        return refusal;
    }
    // SAFETY: SQLite passes a buffer of `count` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), count as usize) }.to_vec();
    noted(file, |state| state.unsynced.push(Write::At(offset as usize, bytes)))
        .and_then(|real| real.xWrite)
        // SAFETY: the arguments are SQLite's, passed on.
        .map_or(1, |write| unsafe { write(file, from, count, offset) })
}

/// # Safety
/// SQLite calls it with what the documentation of `xTruncate` promises.
unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    if let Some(refusal) = refused(file, 0) {
        return refusal;
    }
    noted(file, |state| state.unsynced.push(Write::Truncate(size as usize)))
        .and_then(|real| real.xTruncate)
        // SAFETY: the arguments are SQLite's, passed on.
        .map_or(1, |truncate| unsafe { truncate(file, size) })
}

/// Durable is what is in the image; the real disk need not be asked.
unsafe extern "C" fn sync(file: *mut sqlite3_file, _flags: c_int) -> c_int {
    match fault_of(file) {
        Some(Fault::FailingSync) => return SQLITE_IOERR_FSYNC,
        Some(Fault::SlowSync(ms)) => {
            SLOW_SYNCS.fetch_add(1, Ordering::SeqCst);
            // waits for: the disk that is being played
            std::thread::sleep(std::time::Duration::from_millis(ms));
        }
        _ => {}
    }
    noted(file, |state| {
        for write in std::mem::take(&mut state.unsynced) {
            write.apply(&mut state.image);
        }
    });
    SQLITE_OK
}

/// # Safety
/// SQLite calls it with what the documentation of `xClose` promises.
unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let Some(open) = DISK.lock().open.remove(&(file as usize)) else { return 1 };
    // SAFETY: the file is open; the default VFS closes what it opened, under its own table.
    unsafe {
        (*file).pMethods = open.real;
        open.real.xClose.map_or(1, |close| close(file))
    }
}
