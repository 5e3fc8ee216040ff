/* Loads a libpython when its input ends: `embedder LIBRARY`. */

#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

static const char code[] = "import time\n"
			   "def nap_of_the_embedded():\n"
			   "    time.sleep(0.02)\n"
			   "while True:\n"
			   "    nap_of_the_embedded()\n";

int main(int argc, char **argv)
{
	void (*initialize)(void);
	int (*run)(const char *);
	void *library;
	char byte;

	if (argc != 2)
		return 2;
	while (read(0, &byte, 1) > 0)
		;
	library = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	*(void **)&initialize = dlsym(library, "Py_Initialize");
	*(void **)&run = dlsym(library, "PyRun_SimpleString");
	if (!initialize || !run)
		return 1;
	initialize();
	return run(code);
}
