/* Preloaded into redis-server: keeps a record of how much of the append-only file a power cut
 * would have spared. kill -9 alone spares everything, because what was written is in the
 * kernel's hands by then.
 *
 * POWER_LOSS_RECORD names the file that holds, as a decimal number, the length that the
 * append-only file had when its last completed fsync began: whatever was written later may or
 * may not be on the disk, so here it is not. POWER_LOSS_FSYNC_US is how long a sync takes at
 * least; on a real disk it takes milliseconds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_append_only_file(int fd) {
    static const char suffix[] = ".incr.aof";
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    ssize_t tail = sizeof suffix - 1;
    return length > tail && length < (ssize_t)sizeof path &&
           memcmp(path + length - tail, suffix, tail) == 0;
}

static int sync_and_record(const char *name, int fd) {
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (!is_append_only_file(fd)) return sync(fd);
    struct stat before;
    int known = fstat(fd, &before) == 0;
    const char *delay = getenv("POWER_LOSS_FSYNC_US");
    if (delay) usleep((useconds_t)atol(delay));
    int outcome = sync(fd);
    if (outcome != 0 || !known) return outcome;
    int record = open(getenv("POWER_LOSS_RECORD"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (record < 0) abort();
    char text[24];
    int length = snprintf(text, sizeof text, "%020lld", (long long)before.st_size);
    if (pwrite(record, text, length, 0) != length) abort();
    close(record);
    return outcome;
}

int fsync(int fd) { return sync_and_record("fsync", fd); }
int fdatasync(int fd) { return sync_and_record("fdatasync", fd); }
