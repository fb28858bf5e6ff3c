# vsock connect PORT FD PROGRAM ARGUMENT…: becomes PROGRAM (an absolute path) with FD connected to that port of the host;
# without FD if nobody listens there. It connects from a port that only root may use, which tells it from others.
# vsock listen PORT PROGRAM ARGUMENT…: for each connection of the host to that port, says in a line on it to which other
# port the host shall connect twice more, and runs PROGRAM with the three as fds 3, 4 and 5. Whoever else connects is
# turned away: a guest's own processes can as well, where vsock_loopback is loaded. Exits with 126 when it cannot.
# busybox knows no AF_VSOCK.
# Built by `as vsock.S -o vsock.o && ld -e 0 -Ttext=0 --oformat binary -o vsock vsock.o`; its bytes are in ../binaries.py.

        .intel_syntax noprefix
        .code64
        .set base, 0x400000
        .set any, 0xffffffff                            # linux/vm_sockets.h: VMADDR_CID_ANY, VMADDR_PORT_ANY
        .set host, 2                                    # VMADDR_CID_HOST
        .set own, 1022                                  # LAST_RESERVED_PORT of net/vmw_vsock/af_vsock.c is 1023
        .set family, 40                                 # AF_VSOCK
        .set stream, 0x80001                            # SOCK_STREAM | SOCK_CLOEXEC
        .set patience, 10000                            # ms, for the host to connect again
        .set backlog, 64
        .set addr, -64                                  # from rbp: struct sockaddr_vm, 16 bytes
        .set other, -32                                 # 32 bytes for what else is passed by address

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
        sub     rsp, 64
        cmp     qword ptr [rbp], 4
        jb      failed
        mov     rsi, [rbp + 24]                         # argv[2]
        call    number
        mov     r12d, eax
        mov     rsi, [rbp + 16]                         # argv[1]
        cmp     byte ptr [rsi], 'c'
        je      connect

        call    listening
        mov     qword ptr [rbp + other], 0              # struct kernel_sigaction: SIG_DFL, as whoever is run wants it,
        mov     qword ptr [rbp + other + 8], 2          # and SA_NOCLDWAIT, which execve drops: nobody waits here
        mov     qword ptr [rbp + other + 16], 0
        mov     qword ptr [rbp + other + 24], 0
        mov     eax, 13                                 # rt_sigaction(SIGCHLD, …)
        mov     edi, 17
        lea     rsi, [rbp + other]
        xor     edx, edx
        mov     r10d, 8
        syscall
1:      mov     edx, -1
        call    accept
        test    eax, eax
        js      1b
        mov     r13d, eax
        mov     eax, 57                                 # fork
        syscall
        test    eax, eax
        jz      session
        mov     edi, r13d
        call    close
        jmp     1b

session:                                                # r13d: the first of three
        mov     edi, ebx
        call    close
        mov     r12d, any
        call    listening
        mov     eax, 51                                 # getsockname
        mov     edi, ebx
        lea     rsi, [rbp + addr]
        mov     dword ptr [rbp + other], 16
        lea     rdx, [rbp + other]
        syscall
        mov     eax, [rbp + addr + 4]                   # svm_port, as text from its end
        lea     rsi, [rbp - 1]
        mov     byte ptr [rsi], '\n'
        mov     ecx, 10
2:      xor     edx, edx
        div     ecx
        add     dl, '0'
        dec     rsi
        mov     [rsi], dl
        test    eax, eax
        jnz     2b
        mov     rdx, rbp
        sub     rdx, rsi
        mov     edi, r13d
        mov     eax, 1                                  # write
        syscall
        call    next
        mov     r14d, eax
        call    next
        mov     r15d, eax
        mov     edi, ebx
        call    close
        mov     edi, r13d                               # all out of the way of 3, 4 and 5 first
        call    raise
        mov     r13d, eax
        mov     edi, r14d
        call    raise
        mov     r14d, eax
        mov     edi, r15d
        call    raise
        mov     r15d, eax
        mov     edi, r13d
        mov     esi, 3
        call    dup2
        mov     edi, r14d
        mov     esi, 4
        call    dup2
        mov     edi, r15d
        mov     esi, 5
        call    dup2
        lea     rsi, [rbp + 32]                         # argv + 3
        jmp     become

connect:
        cmp     qword ptr [rbp], 5
        jb      failed
        mov     r13d, r12d
        mov     r12d, own
        call    bound
        mov     dword ptr [rbp + addr + 4], r13d
        mov     dword ptr [rbp + addr + 8], host
        mov     eax, 42                                 # connect
        call    on_address
        test    eax, eax
        js      3f
        mov     rsi, [rbp + 32]                         # argv[3]
        call    number
        mov     esi, eax
        mov     edi, ebx
        call    dup2
3:      lea     rsi, [rbp + 40]                         # argv + 4

become: mov     rax, [rbp]
        lea     rdx, [rbp + rax * 8 + 16]               # envp
        mov     rdi, [rsi]
        mov     eax, 59                                 # execve
        syscall
failed: mov     eax, 60                                 # exit(126)
        mov     edi, 126
        syscall

listening:                                              # at port r12d → ebx
        call    bound
        test    eax, eax
        js      failed
        mov     eax, 50                                 # listen
        mov     edi, ebx
        mov     esi, backlog
        syscall
        test    eax, eax
        js      failed
        ret

bound:  mov     eax, 41                                 # socket, bind to port r12d → ebx, eax: what bind says
        mov     edi, family
        mov     esi, stream
        xor     edx, edx
        syscall
        test    eax, eax
        js      failed
        mov     ebx, eax
        mov     dword ptr [rbp + addr], family
        mov     [rbp + addr + 4], r12d
        mov     dword ptr [rbp + addr + 8], any
        mov     dword ptr [rbp + addr + 12], 0
        mov     eax, 49                                 # bind
on_address:
        mov     edi, ebx
        lea     rsi, [rbp + addr]
        mov     edx, 16
        syscall
        ret

next:   mov     edx, patience                           # → eax
        call    accept
        test    eax, eax
        js      failed
        ret

accept: mov     [rbp + other], ebx                      # within edx ms → eax: a connection of the host, or negative
        mov     dword ptr [rbp + other + 4], 1          # struct pollfd: POLLIN
        mov     eax, 7                                  # poll
        lea     rdi, [rbp + other]
        mov     esi, 1
        syscall
        dec     eax
        js      4f
        mov     eax, 288                                # accept4(…, SOCK_CLOEXEC)
        mov     edi, ebx
        lea     rsi, [rbp + addr]
        mov     dword ptr [rbp + other], 16
        lea     rdx, [rbp + other]
        mov     r10d, 0x80000
        syscall
        test    eax, eax
        js      4f
        cmp     dword ptr [rbp + addr + 8], host        # svm_cid
        je      4f
        mov     edi, eax
        call    close
        or      eax, -1
4:      ret

close:  mov     eax, 3
        syscall
        ret

raise:  mov     eax, 72                                 # fcntl(edi, F_DUPFD_CLOEXEC, 10)
        mov     esi, 1030
        mov     edx, 10
        syscall
        ret

dup2:   mov     eax, 33
        syscall
        ret

number: xor     eax, eax                                # rsi: text → eax
5:      movzx   ecx, byte ptr [rsi]
        inc     rsi
        lea     edx, [rcx - '0']
        cmp     edx, 9
        ja      6f
        imul    eax, eax, 10
        add     eax, edx
        jmp     5b
6:      ret
end:
