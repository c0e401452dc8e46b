/* A disk that does not answer, for one file: loaded into the server (LD_PRELOAD), it holds the threads that read the file.
 *
 * HANG_READS is the file's name without its folder. While "$HANG_FLAG" exists, pread(2) of it does not return: on all
 * threads if that file is empty, else on the first of the threads to come whose name begins with what it says. While
 * "$HANG_ACCEPT" exists, accept4(2) does not return. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_int held;

/* How many bytes of a thread's name the flag says; -1 if there is no flag. */
static int flag(char *name, size_t size) {
    const char *path = getenv("HANG_FLAG");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return -1;
    ssize_t len = read(fd, name, size);
    close(fd);
    return len < 0 ? -1 : (int)len;
}

static int is_the_file(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    const char *wanted = getenv("HANG_READS");
    if (len < 0 || !wanted)
        return 0;
    path[len] = 0;
    const char *name = strrchr(path, '/');
    return name && strcmp(name + 1, wanted) == 0;
}

static void hang(int fd) {
    char wanted[16], name[16] = "";
    int len = flag(wanted, sizeof wanted);
    if (len < 0 || !is_the_file(fd))
        return;
    if (len > 0) {
        pthread_getname_np(pthread_self(), name, sizeof name);
        if (strncmp(name, wanted, len) != 0 || atomic_exchange(&held, 1))
            return;
    }
    while (flag(wanted, sizeof wanted) >= 0)
        usleep(5000);
    if (len > 0)
        atomic_store(&held, 0);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t offset) {
    static ssize_t (*next)(int, void *, size_t, off64_t);
    if (!next)
        next = (ssize_t(*)(int, void *, size_t, off64_t))dlsym(RTLD_NEXT, "pread64");
    hang(fd);
    return next(fd, bytes, count, offset);
}

ssize_t pread(int fd, void *bytes, size_t count, off_t offset) { return pread64(fd, bytes, count, offset); }

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    static int (*next)(int, struct sockaddr *, socklen_t *, int);
    if (!next)
        next = (int (*)(int, struct sockaddr *, socklen_t *, int))dlsym(RTLD_NEXT, "accept4");
    const char *path = getenv("HANG_ACCEPT");
    while (path && access(path, F_OK) == 0)
        usleep(5000);
    return next(fd, address, length, flags);
}
