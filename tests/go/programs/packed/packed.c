// Runs a static executable as one that is packed does: from memory, in the place of its own file.

#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int load(int file, const Elf64_Phdr *segment)
{
	uintptr_t begin = segment->p_vaddr & ~4095ul;
	size_t size = segment->p_vaddr + segment->p_memsz - begin;
	int protection = (segment->p_flags & PF_R ? PROT_READ : 0) |
			 (segment->p_flags & PF_W ? PROT_WRITE : 0) |
			 (segment->p_flags & PF_X ? PROT_EXEC : 0);
	void *at = mmap((void *)begin, size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (at == MAP_FAILED)
		return -1;
	if (pread(file, (void *)segment->p_vaddr, segment->p_filesz, segment->p_offset) < 0)
		return -1;
	return mprotect(at, size, protection);
}

int main(int count, char **arguments)
{
	Elf64_Ehdr header;
	Elf64_Phdr segments[16];
	int file = count > 1 ? open(arguments[1], O_RDONLY | O_CLOEXEC) : -1;

	if (file < 0 || pread(file, &header, sizeof(header), 0) != sizeof(header) ||
	    header.e_phnum > 16 || pread(file, segments, sizeof(segments), header.e_phoff) < 0) {
		perror("packed");
		return 1;
	}
	for (int i = 0; i < header.e_phnum; i++)
		if (segments[i].p_type == PT_LOAD && load(file, &segments[i]))
			return 1;
	// The stack as the kernel left it begins with the number of arguments.
	__asm__ volatile("mov %0, %%rsp\n\txor %%edx, %%edx\n\tjmp *%1"
			 :
			 : "r"((uintptr_t *)arguments - 1), "r"(header.e_entry)
			 : "memory");
	return 1;
}
