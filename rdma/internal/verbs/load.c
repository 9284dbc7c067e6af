//go:build cgo

#include "cf_lib.h"
#include <stdio.h>

#ifdef CF_HAVE_VERBS
#include <dlfcn.h>

struct cf_lib cf_lib;

static void *open_lib(const char *name, char *msg, size_t n)
{
	void *h = dlopen(name, RTLD_NOW | RTLD_LOCAL);

	if (!h)
		snprintf(msg, n, "%s", dlerror());
	return h;
}

// dlsym gives the default version of a symbol (name@@VERSION), the one that a
// program linked today would get.
#define CF_LOAD(name) \
	if (!(cf_lib.p_##name = (__typeof__(&name))dlsym(h, #name))) { \
		snprintf(msg, n, "%s lacks %s: too old", lib, #name); \
		return ENOSYS; \
	}

int cf_load(char *msg, size_t n)
{
	const char *lib = "libibverbs.so.1";
	void *h = open_lib(lib, msg, n);

	if (!h)
		return ENOENT;
	CF_IBV(CF_LOAD)
	lib = "librdmacm.so.1";
	h = open_lib(lib, msg, n);
	if (!h)
		return ENOENT;
	CF_CM(CF_LOAD)
	return 0;
}
#endif
