;; What frames have in common, found for many in one call. Compiled to frame-runs.wasm.ts by
;; `node scripts/wasm.ts`. Tables are frame tables (`memory/copy.ts`, FRAME_TABLE).
;;
;; survey(table, list, first, count, any, sums): looks at the headers of frames list[first … count - 1]
;; (bytes: indexes into the table) and returns the place in the list of the first that has metadata or a tag
;; (802.1Q, 802.1ad), has not 14 bytes there, is not in the window, or, unless `any` is set, has another
;; destination than frame list[first]; or count. At `sums` (u32): bytes of those before it; the same with each
;; padded to 60; the longest; the shortest.
;;
;; hash(table, list, first, count, control, key, hashes): RSS (§7.1.2.8) of frames list[first … count - 1], as
;; MRQC in `control` asks for it. `key` is a table of 36 times 256 words: what each value of each byte of the
;; input adds to the hash. At `hashes` (u32), by frame of the table: the hash, and 256 bytes on the RSS type.
;; Stops where survey does but for the destination, at IPv4 with options and at IP headers that are not all
;; there; returns the place in the list.
(module
  (memory (import "sluice" "window") 65536 65536 shared)

  (func (export "survey")
    (param $table i32) (param $list i32) (param $first i32) (param $count i32) (param $any i32)
    (param $sums i32)
    (result i32)
    (local $i i32) (local $slot i32) (local $word i32) (local $header f64) (local $at i32)
    (local $low i32) (local $high i32) (local $ether i32) (local $length i32)
    (local $bytes i32) (local $padded i32) (local $longest i32) (local $shortest i32)
    (local.set $i (local.get $first))
    (local.set $shortest (i32.const -1))
    (block $stop
      (loop $next
        (br_if $stop (i32.ge_u (local.get $i) (local.get $count)))
        (local.set $slot (i32.load8_u (i32.add (local.get $list) (local.get $i))))
        (local.set $header
          (f64.load offset=512 (i32.add (local.get $table) (i32.shl (local.get $slot) (i32.const 3)))))
        (br_if $stop (f64.ge (local.get $header) (f64.const 4292870144)))
        (local.set $at (i32.trunc_f64_u (local.get $header)))
        (local.set $word (i32.add (local.get $table) (i32.shl (local.get $slot) (i32.const 2))))
        (br_if $stop (i32.lt_u (i32.load offset=1280 (local.get $word)) (i32.const 26)))
        ;; flags and gso_type
        (br_if $stop (i32.load16_u (local.get $at)))
        (if (i32.or (local.get $any) (i32.eq (local.get $i) (local.get $first)))
          (then
            (local.set $low (i32.load offset=12 (local.get $at)))
            (local.set $high (i32.load16_u offset=16 (local.get $at)))))
        (br_if $stop (i32.ne (local.get $low) (i32.load offset=12 (local.get $at))))
        (br_if $stop (i32.ne (local.get $high) (i32.load16_u offset=16 (local.get $at))))
        ;; the EtherType is big-endian
        (local.set $ether (i32.load16_u offset=24 (local.get $at)))
        (br_if $stop (i32.eq (local.get $ether) (i32.const 0x0081)))
        (br_if $stop (i32.eq (local.get $ether) (i32.const 0xa888)))
        (local.set $length (i32.load offset=1792 (local.get $word)))
        (local.set $bytes (i32.add (local.get $bytes) (local.get $length)))
        (local.set $padded
          (i32.add
            (local.get $padded)
            (select
              (local.get $length)
              (i32.const 60)
              (i32.gt_u (local.get $length) (i32.const 60)))))
        (local.set $longest
          (select
            (local.get $length)
            (local.get $longest)
            (i32.gt_u (local.get $length) (local.get $longest))))
        (local.set $shortest
          (select
            (local.get $length)
            (local.get $shortest)
            (i32.lt_u (local.get $length) (local.get $shortest))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (i32.store (local.get $sums) (local.get $bytes))
    (i32.store offset=4 (local.get $sums) (local.get $padded))
    (i32.store offset=8 (local.get $sums) (local.get $longest))
    (i32.store offset=12 (local.get $sums) (local.get $shortest))
    (local.get $i))

  ;; What n bytes at `from` add to a hash, as bytes `$at` and on of its input.
  (func $toeplitz
    (param $key i32) (param $from i32) (param $n i32) (param $at i32) (param $hash i32)
    (result i32)
    (local.set $key (i32.add (local.get $key) (i32.shl (local.get $at) (i32.const 10))))
    (local.set $n (i32.add (local.get $from) (local.get $n)))
    (loop $byte
      (local.set $hash
        (i32.xor
          (local.get $hash)
          (i32.load
            (i32.add
              (local.get $key)
              (i32.shl (i32.load8_u (local.get $from)) (i32.const 2))))))
      (local.set $key (i32.add (local.get $key) (i32.const 1024)))
      (local.set $from (i32.add (local.get $from) (i32.const 1)))
      (br_if $byte (i32.ne (local.get $from) (local.get $n))))
    (local.get $hash))

  (func (export "hash")
    (param $table i32) (param $list i32) (param $i i32) (param $count i32)
    (param $control i32) (param $key i32) (param $hashes i32)
    (result i32)
    (local $slot i32) (local $header f64) (local $at i32) (local $length i32) (local $ether i32)
    (local $protocol i32) (local $hash i32) (local $type i32) (local $ports i32)
    (block $stop
      (loop $next
        (br_if $stop (i32.ge_u (local.get $i) (local.get $count)))
        (local.set $slot (i32.load8_u (i32.add (local.get $list) (local.get $i))))
        (local.set $header
          (f64.load offset=512 (i32.add (local.get $table) (i32.shl (local.get $slot) (i32.const 3)))))
        (br_if $stop (f64.ge (local.get $header) (f64.const 4292870144)))
        (local.set $at (i32.trunc_f64_u (local.get $header)))
        (local.set $slot (i32.shl (local.get $slot) (i32.const 2)))
        (local.set $length (i32.load offset=1280 (i32.add (local.get $table) (local.get $slot))))
        (br_if $stop (i32.lt_u (local.get $length) (i32.const 26)))
        (local.set $length (i32.sub (local.get $length) (i32.const 12)))
        (br_if $stop (i32.load16_u (local.get $at)))
        (local.set $at (i32.add (local.get $at) (i32.const 12)))
        (local.set $ether (i32.load16_u offset=12 (local.get $at)))
        (br_if $stop (i32.eq (local.get $ether) (i32.const 0x0081)))
        (br_if $stop (i32.eq (local.get $ether) (i32.const 0xa888)))
        (local.set $hash (i32.const 0))
        (local.set $type (i32.const 0))
        (if (i32.eq (local.get $ether) (i32.const 0x0008))
          (then
            (br_if $stop (i32.lt_u (local.get $length) (i32.const 34)))
            (br_if $stop
              (i32.ne
                (i32.and (i32.load8_u offset=14 (local.get $at)) (i32.const 0xf))
                (i32.const 5)))
            ;; ports of a whole packet only
            (local.set $ports
              (i32.and
                (i32.ge_u (local.get $length) (i32.const 38))
                (i32.eqz (i32.and (i32.load16_u offset=20 (local.get $at)) (i32.const 0xff3f)))))
            (local.set $protocol (i32.load8_u offset=23 (local.get $at)))
            (if
              (i32.and
                (local.get $ports)
                (i32.and
                  (i32.eq (local.get $protocol) (i32.const 6))
                  (i32.ne (i32.and (local.get $control) (i32.const 0x10000)) (i32.const 0))))
              (then (local.set $type (i32.const 1))))
            (if
              (i32.and
                (local.get $ports)
                (i32.and
                  (i32.eq (local.get $protocol) (i32.const 17))
                  (i32.ne (i32.and (local.get $control) (i32.const 0x400000)) (i32.const 0))))
              (then (local.set $type (i32.const 7))))
            (if (local.get $type)
              (then
                (local.set $hash
                  (call $toeplitz
                    (local.get $key)
                    (i32.add (local.get $at) (i32.const 26)) (i32.const 12)
                    (i32.const 0) (i32.const 0))))
              (else
                (if (i32.and (local.get $control) (i32.const 0x20000))
                  (then
                    (local.set $type (i32.const 2))
                    (local.set $hash
                      (call $toeplitz
                        (local.get $key)
                        (i32.add (local.get $at) (i32.const 26)) (i32.const 8)
                        (i32.const 0) (i32.const 0)))))))))
        (if (i32.eq (local.get $ether) (i32.const 0xdd86))
          (then
            (br_if $stop (i32.lt_u (local.get $length) (i32.const 54)))
            (local.set $ports (i32.ge_u (local.get $length) (i32.const 58)))
            (local.set $protocol (i32.load8_u offset=20 (local.get $at)))
            (if
              (i32.and
                (local.get $ports)
                (i32.and
                  (i32.eq (local.get $protocol) (i32.const 6))
                  (i32.ne (i32.and (local.get $control) (i32.const 0x200000)) (i32.const 0))))
              (then (local.set $type (i32.const 3))))
            (if
              (i32.and
                (local.get $ports)
                (i32.and
                  (i32.eq (local.get $protocol) (i32.const 17))
                  (i32.ne (i32.and (local.get $control) (i32.const 0x800000)) (i32.const 0))))
              (then (local.set $type (i32.const 8))))
            (if
              (i32.or
                (local.get $type)
                (i32.ne (i32.and (local.get $control) (i32.const 0x100000)) (i32.const 0)))
              (then
                (local.set $hash
                  (call $toeplitz
                    (local.get $key)
                    (i32.add (local.get $at) (i32.const 22)) (i32.const 32)
                    (i32.const 0) (i32.const 0)))
                (if (local.get $type)
                  (then
                    (local.set $hash
                      (call $toeplitz
                        (local.get $key)
                        (i32.add (local.get $at) (i32.const 54)) (i32.const 4)
                        (i32.const 32) (local.get $hash))))
                  (else (local.set $type (i32.const 5))))))))
        (i32.store (i32.add (local.get $hashes) (local.get $slot)) (local.get $hash))
        (i32.store offset=256 (i32.add (local.get $hashes) (local.get $slot)) (local.get $type))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (local.get $i)))
