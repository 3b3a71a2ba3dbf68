/* Preloaded into fsx: regular files below $DIRECT_BELOW are opened with O_DIRECT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef int (*opener)(const char *, int, ...);

static int direct_open(const char *symbol, const char *path, int flags, mode_t mode)
{
    const char *below = getenv("DIRECT_BELOW");
    opener next = (opener)dlsym(RTLD_NEXT, symbol);

    if (below && !strncmp(path, below, strlen(below)) && !(flags & (O_DIRECTORY | O_PATH)))
        flags |= O_DIRECT;
    return next(path, flags, mode);
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
