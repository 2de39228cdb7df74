//! Every socket is an open file, so the soft limit is raised to the hard limit, for this process and for a server that
//! it starts.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        eprintln!("the limit of open files stays at {:?}: {error}", limit.current);
    }
}
