"""The names of all metrics, by kind."""

IMAGES = "cifar_images"
IMAGE_BYTES = "cifar_image_bytes"
SHARDS_DONE = "cifar_shards_done"
SHARDS_LEFT = "cifar_shards_left"
SHARDS_WAITING = "cifar_shards_waiting"
RETRIES = "cifar_shard_retries"
STAGE_SECONDS = "cifar_stage_seconds"
TRAINING_LOSS = "cifar_training_loss"
VALIDATION_ACCURACY = "cifar_validation_accuracy"
TRAINING_SPEED = "cifar_training_images_per_second"
EPOCHS_DONE = "cifar_epochs_done"
TRIALS = "cifar_trials"
COUNTERS = (IMAGES, IMAGE_BYTES, SHARDS_DONE, RETRIES)
GAUGES = (
    SHARDS_LEFT,
    SHARDS_WAITING,
    TRAINING_LOSS,
    VALIDATION_ACCURACY,
    TRAINING_SPEED,
    EPOCHS_DONE,
    TRIALS,
)
HISTOGRAMS = (STAGE_SECONDS,)
