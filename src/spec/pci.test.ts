import assert from 'node:assert/strict';
import test from 'node:test';
import * as pci from './pci.ts';

test('the header has the layout of PCI 3.0 figure 6-1', () => {
  const fields: readonly (readonly [offset: number, bytes: number])[] = [
    [pci.PCI_VENDOR_ID, 2],
    [pci.PCI_DEVICE_ID, 2],
    [pci.PCI_COMMAND, 2],
    [pci.PCI_STATUS, 2],
    [pci.PCI_REVISION_ID, 1],
    [pci.PCI_CLASS_CODE, 3],
    [pci.PCI_CACHE_LINE_SIZE, 1],
    [pci.PCI_LATENCY_TIMER, 1],
    [pci.PCI_HEADER_TYPE, 1],
    [pci.PCI_BIST, 1],
    [pci.PCI_BAR0, 4 * pci.PCI_BARS],
    [pci.PCI_CARDBUS_CIS, 4],
    [pci.PCI_SUBSYSTEM_VENDOR_ID, 2],
    [pci.PCI_SUBSYSTEM_ID, 2],
    [pci.PCI_ROM_BAR, 4],
    [pci.PCI_CAPABILITIES_POINTER, 1],
  ];
  let next = 0;
  for (const [offset, bytes] of fields) {
    assert.equal(offset, next);
    next += bytes;
  }
  assert.deepEqual(
    [pci.PCI_INTERRUPT_LINE, pci.PCI_INTERRUPT_PIN, pci.PCI_MIN_GNT, pci.PCI_MAX_LAT],
    [0x3c, 0x3d, 0x3e, 0x3f],
  );
});

test('six VF BARs and the migration array end the SR-IOV capability', () => {
  assert.equal(pci.PCIE_SRIOV_BAR0 + 4 * pci.PCI_BARS, pci.PCIE_SRIOV_MIGRATION);
  assert.equal(pci.PCIE_SRIOV_MIGRATION + 4, pci.PCIE_SRIOV_BYTES);
});

test('default masks and severities of AER are errors that an endpoint has', () => {
  assert.equal(pci.PCIE_AER_FATAL_DEFAULT & ~pci.PCIE_AER_UNCORRECTABLE, 0);
  assert.equal(pci.PCIE_AER_UNCORRECTABLE_MASK_DEFAULT & ~pci.PCIE_AER_UNCORRECTABLE, 0);
  assert.equal(pci.PCIE_AER_CORRECTABLE_MASK_DEFAULT & ~pci.PCIE_AER_CORRECTABLE, 0);
});
