/* A disk quota, for one folder: loaded into the server (LD_PRELOAD), it refuses what would make files grow beyond it.
 *
 * QUOTA_FOLDER is the folder, QUOTA_FILE a file with the number of bytes that its files may have together; without that
 * file there is no quota. What exists can be overwritten, as with a real one. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static long long limit(void) {
    long long bytes = -1;
    const char *path = getenv("QUOTA_FILE");
    FILE *file = path ? fopen(path, "re") : NULL;
    if (!file)
        return -1;
    if (fscanf(file, "%lld", &bytes) != 1)
        bytes = -1;
    fclose(file);
    return bytes;
}

static long long used(const char *folder) {
    char path[4096];
    long long bytes = 0;
    struct stat found;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (stat(path, &found) == 0 && S_ISREG(found.st_mode))
            bytes += found.st_size;
    }
    if (dir)
        closedir(dir);
    return bytes;
}

/* Whether a file may have as many bytes as `end`. */
static int may_grow(int fd, long long end) {
    char link[64], path[4096];
    struct stat file;
    const char *folder = getenv("QUOTA_FOLDER");
    size_t length = folder ? strlen(folder) : 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t found = readlink(link, path, sizeof path - 1);
    if (!length || found < 0 || fstat(fd, &file) || !S_ISREG(file.st_mode) || end <= file.st_size)
        return 1;
    path[found] = 0;
    if (strncmp(path, folder, length) || path[length] != '/')
        return 1;
    long long most = limit();
    return most < 0 || used(folder) + end - file.st_size <= most;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    static ssize_t (*next)(int, const void *, size_t, off64_t);
    if (!next)
        next = (ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    if (!may_grow(fd, offset + (long long)count)) {
        errno = EDQUOT;
        return -1;
    }
    return next(fd, bytes, count, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) { return pwrite64(fd, bytes, count, offset); }

ssize_t write(int fd, const void *bytes, size_t count) {
    static ssize_t (*next)(int, const void *, size_t);
    if (!next)
        next = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    off_t offset = lseek(fd, 0, SEEK_CUR);
    if (offset >= 0 && !may_grow(fd, offset + (long long)count)) {
        errno = EDQUOT;
        return -1;
    }
    return next(fd, bytes, count);
}
