/* Preloaded into fsx: regular files below $DIRECT_BELOW are opened with O_DIRECT. The file $DIRECT_LOG says
 * `direct` if the kernel says so of all of them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*opener)(const char *, int, ...);

/* Writes what the kernel says of this file; what it said of another before stays, if that was bad. */
static void note(opener next, int file)
{
    static int indirect;
    const char *log = getenv("DIRECT_LOG");
    int flags = fcntl(file, F_GETFL);
    int to;

    if (!log || flags < 0)
        return;
    indirect |= !(flags & O_DIRECT);
    to = next(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (to < 0)
        return;
    if (write(to, indirect ? "cached" : "direct", 6) != 6)
        abort();
    close(to);
}

static int direct_open(const char *symbol, const char *path, int flags, mode_t mode)
{
    const char *below = getenv("DIRECT_BELOW");
    opener next = (opener)dlsym(RTLD_NEXT, symbol);

    if (!below || strncmp(path, below, strlen(below)) || (flags & (O_DIRECTORY | O_PATH)))
        return next(path, flags, mode);
    int file = next(path, flags | O_DIRECT, mode);
    note(next, file);
    return file;
}

static mode_t mode_of(int flags, va_list arguments)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return direct_open("open", path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return direct_open("open64", path, flags, mode);
}
