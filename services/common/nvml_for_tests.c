// Stands in for NVIDIA's management library in a test: two GPUs, of which the second will not tell its
// utilisation.
#include <stdint.h>
#include <string.h>

static int gpus[2];

int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(uint32_t* count) { return *count = 2, 0; }
int nvmlDeviceGetHandleByIndex_v2(uint32_t index, void** device) {
  return *device = &gpus[index], 0;
}
int nvmlDeviceGetUUID(void* device, char* text, uint32_t length) {
  return strncpy(text, device == &gpus[0] ? "GPU-a" : "GPU-b", length), 0;
}
int nvmlDeviceGetName(void* device, char* text, uint32_t length) {
  (void)device;
  return strncpy(text, "NVIDIA H200", length), 0;
}
int nvmlDeviceGetMemoryInfo(void* device, uint64_t memory[3]) {
  (void)device;
  memory[0] = 1000, memory[1] = 750, memory[2] = 250;
  return 0;
}
int nvmlDeviceGetUtilizationRates(void* device, uint32_t rates[2]) {
  rates[0] = 40, rates[1] = 10;
  return device == &gpus[0] ? 0 : 3; /* NVML_ERROR_NOT_SUPPORTED */
}
