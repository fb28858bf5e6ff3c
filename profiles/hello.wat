;; A WASI preview 1 command: greets, shows its arguments and environment, counts primes, and ends with code 0.
;;
;; Memory: 0-15 an iovec and what fd_write returns; 16-31 sizes; 32-63 digits; 64-511 text;
;; 4096- argv pointers; 8192- argv text; 16384- environ pointers; 20480- environ text; 65536- the sieve.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 4)
  (data (i32.const 64) "hello from a WASM sandbox\n")
  (data (i32.const 96) "argument: ")
  (data (i32.const 112) "environment: ")
  (data (i32.const 128) "primes below 100000: ")
  (data (i32.const 160) "\n")

  ;; Writes to stdout; whoever cannot be heard ends with code 1.
  (func $print (param $at i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $length))
    (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
      (then (call $proc_exit (i32.const 1)))))

  (func $length (param $at i32) (result i32)
    (local $end i32)
    (local.set $end (local.get $at))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (i32.load8_u (local.get $end))))
        (local.set $end (i32.add (local.get $end) (i32.const 1)))
        (br $next)))
    (i32.sub (local.get $end) (local.get $at)))

  ;; One line for each of the `count` C strings that the pointers at `table` point to, after a label.
  (func $print_each (param $table i32) (param $count i32) (param $label i32) (param $label_length i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (call $print (local.get $label) (local.get $label_length))
        (call $print (i32.load (local.get $table)) (call $length (i32.load (local.get $table))))
        (call $print (i32.const 160) (i32.const 1))
        (local.set $table (i32.add (local.get $table) (i32.const 4)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next))))

  (func $print_number (param $n i32)
    (local $at i32)
    (local.set $at (i32.const 48))
    (loop $next
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
      (local.set $n (i32.div_u (local.get $n) (i32.const 10)))
      (br_if $next (local.get $n)))
    (call $print (local.get $at) (i32.sub (i32.const 48) (local.get $at))))

  ;; How many primes are below `limit`: the sieve of Eratosthenes, a byte a number.
  (func $primes (param $limit i32) (result i32)
    (local $n i32) (local $multiple i32) (local $found i32)
    (local.set $n (i32.const 2))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $n) (local.get $limit)))
        (if (i32.eqz (i32.load8_u offset=65536 (local.get $n)))
          (then
            (local.set $found (i32.add (local.get $found) (i32.const 1)))
            (local.set $multiple (i32.add (local.get $n) (local.get $n)))
            (block $struck
              (loop $strike
                (br_if $struck (i32.ge_u (local.get $multiple) (local.get $limit)))
                (i32.store8 offset=65536 (local.get $multiple) (i32.const 1))
                (local.set $multiple (i32.add (local.get $multiple) (local.get $n)))
                (br $strike)))))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br $next)))
    (local.get $found))

  (func (export "_start")
    (call $print (i32.const 64) (i32.const 26))
    ;; What does not fit into its place in memory is left out.
    (drop (call $args_sizes_get (i32.const 16) (i32.const 20)))
    (if (i32.and (i32.le_u (i32.load (i32.const 16)) (i32.const 1024))
                 (i32.le_u (i32.load (i32.const 20)) (i32.const 8192)))
      (then
        (drop (call $args_get (i32.const 4096) (i32.const 8192)))
        (call $print_each
          (i32.const 4100) (i32.sub (i32.load (i32.const 16)) (i32.const 1)) (i32.const 96) (i32.const 10))))
    (drop (call $environ_sizes_get (i32.const 24) (i32.const 28)))
    (if (i32.and (i32.le_u (i32.load (i32.const 24)) (i32.const 1024))
                 (i32.le_u (i32.load (i32.const 28)) (i32.const 45056)))
      (then
        (drop (call $environ_get (i32.const 16384) (i32.const 20480)))
        (call $print_each (i32.const 16384) (i32.load (i32.const 24)) (i32.const 112) (i32.const 13))))
    (call $print (i32.const 128) (i32.const 21))
    (call $print_number (call $primes (i32.const 100000)))
    (call $print (i32.const 160) (i32.const 1))))
