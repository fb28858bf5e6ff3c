# fresh UID GID[,GID…] PROGRAM ARGUMENT…: becomes PROGRAM (an absolute path) as that user, in exactly these groups, with
# every signal at its default action. Exits with 126 when it cannot.
# busybox has nothing that sets a user who is not in /etc/passwd, and a shell starts its background jobs with SIGINT and
# SIGQUIT ignored (POSIX 2.11), which would stay ignored for good.
# Built by `as fresh.S -o fresh.o && ld -e 0 -Ttext=0 --oformat binary -o fresh fresh.o`; its bytes are in ../binaries.py.

        .intel_syntax noprefix
        .code64
        .set base, 0x400000
        .set most, 64                                   # groups

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

start:  mov     rbp, rsp                                # argc, argv[0], …
        cmp     qword ptr [rbp], 4
        jb      failed
        sub     rsp, 4 * most                           # gid_t groups[most]

        mov     ebx, 64                                 # _NSIG
1:      mov     eax, 13                                 # rt_sigaction(signal, &zeros = SIG_DFL, NULL, 8)
        mov     edi, ebx
        lea     rsi, [rip + zeros]
        xor     edx, edx
        mov     r10d, 8
        syscall                                         # SIGKILL and SIGSTOP are refused, and need nothing
        dec     ebx
        jnz     1b

        mov     rsi, [rbp + 24]                         # argv[2]
        xor     ebx, ebx                                # how many groups
2:      cmp     ebx, most
        je      failed
        call    number
        mov     [rsp + rbx * 4], eax
        inc     ebx
        cmp     cl, ','
        je      2b
        mov     eax, 116                                # setgroups(how many, groups)
        mov     edi, ebx
        mov     rsi, rsp
        syscall
        test    eax, eax
        jnz     failed
        mov     eax, 106                                # setgid(groups[0])
        mov     edi, [rsp]
        syscall
        test    eax, eax
        jnz     failed
        mov     rsi, [rbp + 16]                         # argv[1]
        call    number
        mov     edi, eax
        mov     eax, 105                                # setuid(uid)
        syscall
        test    eax, eax
        jnz     failed

        mov     rax, [rbp]
        lea     rsi, [rbp + 32]                         # argv + 3
        lea     rdx, [rbp + rax * 8 + 16]               # envp
        mov     rdi, [rsi]
        mov     eax, 59                                 # execve
        syscall
failed: mov     eax, 60                                 # exit(126)
        mov     edi, 126
        syscall

number: xor     eax, eax                                # rsi: text → eax: number, cl: what follows, rsi: behind that
3:      movzx   ecx, byte ptr [rsi]
        inc     rsi
        lea     edx, [rcx - '0']
        cmp     edx, 9
        ja      4f
        imul    eax, eax, 10
        add     eax, edx
        jmp     3b
4:      ret

zeros:  .fill   32, 1, 0                                # struct kernel_sigaction
end:
