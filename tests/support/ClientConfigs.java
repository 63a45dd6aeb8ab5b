import java.util.Map;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.config.ConfigDef;

/** Prints the configs of Kafka's own clients, a line each: kind, name, type, default, separated by tabs. */
public class ClientConfigs {
    private static void print(String kind, ConfigDef definition) {
        for (ConfigDef.ConfigKey key : definition.configKeys().values()) {
            System.out.println(String.join("\t", kind, key.name, key.type.name(), text(key.defaultValue)));
        }
    }

    private static String text(Object value) {
        if (value instanceof Iterable<?> values) {
            return java.util.stream.StreamSupport.stream(values.spliterator(), false)
                .map(String::valueOf)
                .collect(Collectors.joining(","));
        }
        return value == ConfigDef.NO_DEFAULT_VALUE ? "" : String.valueOf(value);
    }

    public static void main(String[] arguments) {
        print("producer", ProducerConfig.configDef());
        print("consumer", ConsumerConfig.configDef());
        print("admin", AdminClientConfig.configDef());
    }
}
