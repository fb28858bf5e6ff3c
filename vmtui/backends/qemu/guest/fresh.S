# fresh PROGRAM ARGUMENT…: becomes PROGRAM (an absolute path) with every signal at its default action.
# A shell starts its background jobs with SIGINT and SIGQUIT ignored (POSIX 2.11), which would stay ignored for good.
# Built by `as fresh.S -o fresh.o && ld -Ttext=0 --oformat binary -o fresh fresh.o`; its bytes are in ../binaries.py.

        .intel_syntax noprefix
        .code64
        .set base, 0x400000

header: .byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0           # elf(5): 64-bit, little-endian, System V
        .quad 0
        .word 2, 62                                     # ET_EXEC, EM_X86_64
        .long 1
        .quad base + start - header                     # e_entry
        .quad segment - header                          # e_phoff
        .quad 0
        .long 0
        .word 64, 56, 1, 0, 0, 0
segment:
        .long 1, 5                                      # PT_LOAD, read and execute
        .quad 0, base, base
        .quad end - header, end - header
        .quad 0x1000

start:  mov     ebx, 64                                 # _NSIG
1:      mov     eax, 13                                 # rt_sigaction(signal, &zeros = SIG_DFL, NULL, 8)
        mov     edi, ebx
        lea     rsi, [rip + zeros]
        xor     edx, edx
        mov     r10d, 8
        syscall
        dec     ebx
        jnz     1b
        mov     rax, [rsp]                              # argc
        lea     rsi, [rsp + 16]                         # argv + 1
        lea     rdx, [rsp + rax * 8 + 16]               # envp
        mov     rdi, [rsi]
        mov     eax, 59                                 # execve
        syscall
        mov     eax, 60                                 # exit(126)
        mov     edi, 126
        syscall
zeros:  .fill   32, 1, 0                                # struct kernel_sigaction
end:
