// A library between the server and the C library. A page of memory that is shared with `cargo xtask faults` controls it:
// a wrong wall clock, syncs that are slow or fail, a disk that accepts no writes.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

// In the same order as in `shim.rs`.
static volatile struct {
    int64_t clock_ms;
    int64_t sync_ms;
    int64_t sync_failures;
    int64_t write_error;
} *faults;

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("FAULTS"), O_RDWR | O_CLOEXEC);
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) abort();
    close(fd);
    faults = page;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int done = (int)syscall(SYS_clock_gettime, id, at);
    if (faults && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        int64_t ns = at->tv_nsec + faults->clock_ms % 1000 * 1000000;
        int64_t carry = ns < 0 ? -1 : ns / 1000000000;
        at->tv_sec += faults->clock_ms / 1000 + carry;
        at->tv_nsec = ns - carry * 1000000000;
    }
    return done;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

static int sync_fails(void) {
    int64_t ms = faults->sync_ms;
    struct timespec wait = {ms / 1000, ms % 1000 * 1000000};
    if (ms) nanosleep(&wait, NULL);
    if (faults->sync_failures <= 0) return 0;
    return __atomic_fetch_sub(&faults->sync_failures, 1, __ATOMIC_SEQ_CST) > 0;
}

int fsync(int fd) {
    if (faults && sync_fails()) return errno = EIO, -1;
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    if (faults && sync_fails()) return errno = EIO, -1;
    return (int)syscall(SYS_fdatasync, fd);
}

// For files only: sockets and the server's own output still work.
static int is_refused(int fd) {
    struct stat is;
    if (!faults || !faults->write_error || fd <= 2) return 0;
    if (fstat(fd, &is) || !S_ISREG(is.st_mode)) return 0;
    errno = (int)faults->write_error;
    return 1;
}

ssize_t write(int fd, const void *from, size_t count) {
    return is_refused(fd) ? -1 : syscall(SYS_write, fd, from, count);
}

ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) {
    return is_refused(fd) ? -1 : syscall(SYS_pwrite64, fd, from, count, at);
}

ssize_t pwrite(int fd, const void *from, size_t count, off_t at) { return pwrite64(fd, from, count, at); }

int ftruncate64(int fd, off64_t length) { return is_refused(fd) ? -1 : (int)syscall(SYS_ftruncate, fd, length); }

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }
