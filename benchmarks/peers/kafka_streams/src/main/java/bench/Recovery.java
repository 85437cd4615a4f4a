package bench;

import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.state.Stores;

/**
 * A table of keys. Says when it runs with everything restored, how long restoring took from its first partition's begin to its
 * last one's end, and when so many records have been processed; SIGTERM closes it cleanly.
 */
public final class Recovery {
    public static void main(String[] arguments) throws Exception {
        long wanted = Long.parseLong(Harness.setting("EVENTS"));
        AtomicLong seen = new AtomicLong();
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(Harness.setting("TOPIC"), Consumed.with(Serdes.Bytes(), Serdes.ByteArray()))
                .peek((key, value) -> {
                    if (seen.incrementAndGet() == wanted) {
                        Harness.mark("done", "\"events\": " + wanted);
                    }
                })
                .toTable(Materialized.<Bytes, byte[]>as(Stores.persistentKeyValueStore("values"))
                        .withKeySerde(Serdes.Bytes())
                        .withValueSerde(Serdes.ByteArray()));
        Properties settings = Harness.properties();
        settings.put("group.instance.id", Harness.setting("INSTANCE"));
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        Restoring restoring = new Restoring();
        streams.setGlobalStateRestoreListener(restoring);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        Harness.startAndWait(streams);
        double seconds = (restoring.end.get() - restoring.begin.get()) / 1e9;
        Harness.mark("ready", "\"restored\": " + restoring.total.get() + ", \"restore_s\": " + seconds);
        Thread.sleep(Long.MAX_VALUE);
    }

    private static final class Restoring implements StateRestoreListener {
        final AtomicLong begin = new AtomicLong();
        final AtomicLong end = new AtomicLong();
        final AtomicLong total = new AtomicLong();

        @Override
        public void onRestoreStart(TopicPartition place, String store, long from, long to) {
            begin.compareAndSet(0, System.nanoTime());
        }

        @Override
        public void onBatchRestored(TopicPartition place, String store, long at, long count) {}

        @Override
        public void onRestoreEnd(TopicPartition place, String store, long count) {
            total.addAndGet(count);
            end.set(System.nanoTime());
        }
    }
}
