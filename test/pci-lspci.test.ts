/** What lspci of pciutils makes of configuration spaces: a judge of layouts that is not ours. */
// suite: takes=3
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { findTestbed } from '../src/guest/testbed.ts';
import { PciConfigSpace } from '../src/pci/config-space.ts';
import { Msi } from '../src/pci/msi.ts';
import { advancedFeatures, sata } from '../src/pci/plain-capabilities.ts';
import { PowerManagement } from '../src/pci/power-management.ts';
import { dumpConfig, FullFunction, TestTransport } from '../src/pci/testing.ts';
import {
  PCI_CAP_ID_EXPRESS,
  PCI_CAP_ID_MSI,
  PCI_CAP_ID_PM,
  PCI_EXT_CAP_ID_SRIOV,
  PCIE_AER_COMPLETION_TIMEOUT,
} from '../src/spec/pci.ts';
import { withoutTestbed } from './support/testbed.ts';

/** `lspci -nvvv` of a dump. */
function lspci(dump: string): string {
  const { enter } = findTestbed();
  const command = ['--', 'sh', '-c', 'cat >/tmp/dump && lspci -nvvv -F /tmp/dump'];
  const result = spawnSync(enter, command, { input: dump, encoding: 'utf8' });
  assert.equal(result.status, 0, result.stderr);
  return result.stdout.replaceAll(/[\t ]+/g, ' ');
}

const lspciOf = (fn: FullFunction): string =>
  lspci(dumpConfig(fn.configBytes, (offset, length) => fn.readConfig(offset, length)));

/** All lines are there, in this order. */
function assertLines(text: string, lines: readonly string[]): void {
  let from = 0;
  for (const line of lines) {
    const at = text.indexOf(line, from);
    assert.ok(at >= 0, `no "${line}" here, or too early, in\n${text}`);
    from = at + line.length;
  }
}

describe('lspci', { skip: withoutTestbed() }, () => {
  test('reads a function with every capability', () => {
    const fn = new FullFunction();
    const guest = new TestTransport(fn);
    guest.enumerate();
    fn.irq.setLevel(true);
    assertLines(lspciOf(fn), [
      '00:04.0 0200: 8086:10fb (rev 01)',
      'Subsystem: 8086:0003',
      'Control: I/O+ Mem+ BusMaster+',
      'DisINTx-',
      'Status: Cap+',
      'INTx+',
      'Interrupt: pin A',
      'Region 0: Memory at c0000000 (32-bit, non-prefetchable)',
      'Region 2: I/O ports at 1000',
      'Region 3: Memory at 10000000000 (64-bit, prefetchable)',
      'Power Management version 3',
      'Flags: PMEClk- DSI- D1+ D2- AuxCurrent=0mA PME(D0+,D1-,D2-,D3hot+,D3cold+)',
      'Status: D0 NoSoftRst+ PME-Enable-',
      'MSI: Enable- Count=1/4 Maskable+ 64bit+',
      'Express (v2) Endpoint',
      'DevCap: MaxPayload 256 bytes, PhantFunc 0, Latency L0s unlimited, L1 unlimited',
      'RBE+ FLReset+',
      'MaxPayload 128 bytes, MaxReadReq 512 bytes',
      'LnkCap: Port #0, Speed 8GT/s, Width x4, ASPM not supported',
      'LnkSta: Speed 5GT/s (downgraded), Width x4',
      'MSI-X: Enable- Count=5 Masked-',
      'Vector table: BAR=3 offset=00000000',
      'PBA: BAR=3 offset=00000800',
      'Vendor Specific Information: Len=08',
      '[100 v2] Advanced Error Reporting',
      'UESvrt: DLP+ SDES- TLP- FCP+ CmpltTO- CmpltAbrt- UnxCmplt- RxOF+ MalfTLP+',
      'CEMsk: RxErr- BadTLP- BadDLLP- Rollover- Timeout- AdvNonFatalErr+',
      'Device Serial Number 00-11-22-ff-fe-33-44-55',
      'Access Control Services',
      'Address Translation Service (ATS)',
      'ATSCap: Invalidate Queue Depth: 10',
      'Single Root I/O Virtualization (SR-IOV)',
      'Initial VFs: 7, Total VFs: 7, Number of VFs: 0, Function Dependency Link: 00',
      'VF offset: 128, stride: 2, Device ID: 10ed',
      'Supported Page Size: 00000553, System Page Size: 00000001',
      '(64-bit, prefetchable)',
      'Alternative Routing-ID Interpretation (ARI)',
    ]);
  });

  test('sees what a guest has set, and what went wrong', () => {
    const fn = new FullFunction();
    const guest = new TestTransport(fn);
    guest.enumerate();
    const msi = guest.find(PCI_CAP_ID_MSI);
    fn.writeConfig(msi + 2, 2, 0x0011);
    fn.writeConfig(msi + 4, 4, 0xfee0_1000);
    fn.writeConfig(msi + 12, 2, 0x4040);
    fn.writeConfig(msi + 16, 4, 0x2);
    fn.irq.signal(1);
    fn.writeConfig(guest.find(PCI_CAP_ID_EXPRESS) + 8, 2, 0x503f);
    const sriov = guest.find(PCI_EXT_CAP_ID_SRIOV, true);
    fn.writeConfig(sriov + 0x10, 2, 4);
    fn.writeConfig(sriov + 0x08, 2, 0x19);
    fn.errors.uncorrectable(
      PCIE_AER_COMPLETION_TIMEOUT,
      [0x4000_0001, 0x0000_000f, 0xfee0_0000, 0],
    );
    fn.writeConfig(guest.find(PCI_CAP_ID_PM) + 4, 2, 0x0103);
    assertLines(lspciOf(fn), [
      'Status: D3 NoSoftRst+ PME-Enable+',
      'MSI: Enable+ Count=2/4 Maskable+ 64bit+',
      'Address: 00000000fee01000 Data: 4040',
      'Masking: 00000002 Pending: 00000002',
      'DevCtl: CorrErr+ NonFatalErr+ FatalErr+ UnsupReq+',
      'MaxPayload 256 bytes, MaxReadReq 4096 bytes',
      'DevSta: CorrErr- NonFatalErr+ FatalErr- UnsupReq-',
      'UESta: DLP- SDES- TLP- FCP- CmpltTO+ CmpltAbrt-',
      'AERCap: First Error Pointer: 0e',
      'HeaderLog: 40000001 0000000f fee00000 00000000',
      'IOVCtl: Enable+ Migration- Interrupt- MSE+ ARIHierarchy+',
      'Number of VFs: 4',
    ]);
  });

  test('reads a function of conventional PCI', () => {
    const space = new PciConfigSpace({
      name: 'conventional',
      identity: {
        vendor: 0x8086,
        device: 0x2922,
        revision: 2,
        classCode: 0x010601,
        interruptPin: 2,
      },
      bars: [
        undefined,
        undefined,
        undefined,
        undefined,
        { kind: 'io', bytes: 32 },
        { kind: 'memory32', bytes: 4096 },
      ],
      rom: new Uint8Array(2048),
      capabilities: [
        new Msi({ at: 0x80, vectors: 1, address64: false }),
        sata({ at: 0xa8, bar: 4, offset: 0x10 }),
        advancedFeatures(),
        new PowerManagement({ at: 0x50, noSoftReset: false }),
      ],
    });
    space.write(0x30, 4, 0xd000_0001);
    space.write(0x04, 2, 0x0402);
    assertLines(lspci(dumpConfig(space.bytes, (offset, length) => space.read(offset, length))), [
      '00:04.0 0106: 8086:2922 (rev 02) (prog-if 01 [AHCI 1.0])',
      'Mem+',
      'DisINTx+',
      'Interrupt: pin B',
      'Expansion ROM at d0000000',
      'Capabilities: [80] MSI: Enable- Count=1/1 Maskable- 64bit-',
      // In units of 4 bytes.
      'Capabilities: [a8] SATA HBA v1.0 BAR4 Offset=00000004',
      'PCI Advanced Features',
      'AFCap: TP+ FLR+',
      'AFCtrl: FLR-',
      'AFStatus: TP-',
      'Capabilities: [50] Power Management version 3',
      'NoSoftRst-',
    ]);
  });
});
